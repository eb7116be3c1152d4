package lokiexporter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/exporters/internal/tenant"
	"github.com/longhaul/longhaul/internal/direct"
	"github.com/longhaul/longhaul/internal/otlpwire"
)

// translator turns requests of log records into Loki's streams and entries.
type translator struct {
	tenant      *tenant.Config
	labels      streamLabels
	maxLineSize int
	now         func() time.Time

	idle sync.Pool // of *translation
}

// input is an OTLP request, ExportLogsServiceRequest, as a call brings it. What the
// caller is told has failed are inputs, by their index, or where an input has no
// origin, and so is the only one, its resources.
type input struct {
	otlp []byte
	// origin stands above what the resources say about where they come from; nil:
	// they are right.
	origin *direct.Piece
}

// share is what one tenant gets of a call, and what holds for it meanwhile.
type share struct {
	tenant   *tenantState
	late     latePolicy
	cautious bool // new streams travel alone
	demoted  labelSet
	batch    *batch
	earlier  []deliver.Part // what an earlier attempt got an answer for
}

// translation is the translation of one call: one pass over the bytes of its
// requests. What it keeps from call to call does not point into them.
type translation struct {
	*translator
	open     func(tenant string) *share
	shares   []*share
	byTenant map[string]*share
	lastName string // of the tenant that the resource in hand belongs to

	names    metadataNames
	shapes   shapes
	odd      shape // of resources whose metadata went the long way
	metadata metadata
	severity severity
	text     []byte

	// The resource in hand.
	share      *share
	number     int32 // in the call
	part       int32
	origin     *direct.Piece
	resource   []byte
	attributes []otlpwire.Attribute
	values     []string      // of its labels, by rule
	plain      labelSet      // of which these are written as they are
	whole      bool          // the labels hold their attributes unchanged
	recent     [levels]int32 // 1 + the stream of entries that are not late
	past       [levels]struct {
		stretch int64
		stream  int32
	}

	// The scope in hand, with its resource.
	scope  scope
	shape  *shape
	shared int32 // index in the batch
	apart  bool  // its entries have all metadata for themselves
	pairs  int   // of the shared metadata
	bytes  int   // of their names and values, as Loki counts them

	record record
}

// translate makes a batch for each tenant, with the records grouped by label set,
// in the order in which the label sets appear, each sorted by time. The error is a
// *direct.UndecodableError; there are no shares then.
func (t *translator) translate(inputs []input, open func(tenant string) *share) ([]*share, error) {
	x, _ := t.idle.Get().(*translation)
	if x == nil {
		x = &translation{names: make(metadataNames, 64), byTenant: make(map[string]*share)}
	}
	x.translator, x.open = t, open
	x.metadata.names, x.metadata.labels = x.names, &t.labels
	defer t.idle.Put(x)
	defer x.forget()
	for i := range inputs {
		if err := x.addRequest(int32(i), &inputs[i]); err != nil {
			for _, s := range x.shares {
				s.batch.release()
			}
			return nil, &direct.UndecodableError{Piece: i, Err: err}
		}
	}
	for _, s := range x.shares {
		s.batch.group()
	}
	return x.shares, nil
}

// keptText bounds what is used again for a text, in bytes.
const keptText = 64 << 10

// forget drops what belongs to a call, and what it has made very large.
func (x *translation) forget() {
	x.open, x.shares, x.share, x.lastName = nil, nil, nil, ""
	clear(x.byTenant)
	x.number, x.origin, x.resource = 0, nil, nil
	x.attributes, x.values = emptied(x.attributes), emptied(x.values)
	x.scope.forget()
	x.record.forget()
	x.metadata.reset()
	x.odd = shape{}
	x.shape = nil
	if cap(x.text) > keptText {
		x.text = nil
	}
	if cap(x.severity.encoded) > keptText {
		x.severity = severity{}
	}
}

func (x *translation) addRequest(part int32, in *input) error {
	resources := int32(0)
	r := otlpwire.Read(in.otlp)
	for r.Next() {
		if r.Number != 1 {
			continue
		}
		if in.origin == nil {
			part = resources
			resources++
		}
		if err := x.addResource(part, in.origin, r.Bytes()); err != nil {
			return err
		}
	}
	return r.Err()
}

// errOld: records that stand where OTLP had them before 2022 would be passed over.
var errOld = fmt.Errorf("%w: instrumentation_library_logs, which is no longer in OTLP", otlpwire.ErrMalformed)

// addResource adds the records of a ResourceLogs message. Its fields may come in any
// order.
func (x *translation) addResource(part int32, origin *direct.Piece, message []byte) error {
	var resource []byte
	r := otlpwire.Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			resource = otlpwire.Join(resource, r.Bytes())
		case 2, 3:
			r.Bytes()
		case 1000:
			return errOld
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	if err := x.begin(part, origin, resource); err != nil {
		return fmt.Errorf("resource: %w", err)
	}
	for r = otlpwire.Read(message); r.Next(); {
		if r.Number != 2 {
			continue
		}
		if err := x.addScope(r.Bytes()); err != nil {
			return err
		}
	}
	return nil
}

// begin takes a resource in hand.
func (x *translation) begin(part int32, origin *direct.Piece, resource []byte) (err error) {
	x.number++
	x.part, x.origin, x.resource = part, origin, resource
	x.attributes, err = origin.Attributes(x.attributes[:0], resource)
	if err != nil {
		return err
	}
	x.share = x.shareOf(x.attributes)
	x.shape = x.shapeOf(x.attributes, x.share.demoted)
	x.readLabels()
	if guard := x.share.tenant.guard; guard != nil {
		if demoted := guard.see(x.values); demoted != x.share.demoted {
			x.share.demoted = demoted
			x.shape = x.shapeOf(x.attributes, demoted)
		}
	}
	x.metadata.demoted = x.share.demoted
	clear(x.recent[:])
	clear(x.past[:])
	return nil
}

func (x *translation) shareOf(attributes []otlpwire.Attribute) *share {
	name := x.tenant.Of(attributes)
	if x.share != nil && name == x.lastName {
		return x.share
	}
	s := x.byTenant[name]
	if s == nil {
		s = x.open(name)
		x.byTenant[name] = s
		x.shares = append(x.shares, s)
	}
	x.lastName = name
	return s
}

// addScope adds the records of a ScopeLogs message.
func (x *translation) addScope(message []byte) error {
	var scope []byte
	records := 0
	r := otlpwire.Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			scope = otlpwire.Join(scope, r.Bytes())
		case 2:
			r.Bytes()
			records++
		case 3:
			r.Bytes()
		}
	}
	if r.Err() != nil {
		return r.Err()
	}
	if err := x.scope.read(scope); err != nil {
		return fmt.Errorf("scope: %w", err)
	}
	if records == 0 {
		return nil
	}
	shape := x.shape
	x.addShared()
	for r = otlpwire.Read(message); r.Next(); {
		if r.Number != 2 {
			continue
		}
		if err := x.add(r.Bytes()); err != nil {
			return fmt.Errorf("record: %w", err)
		}
	}
	x.shape = shape
	return nil
}

// scope is an InstrumentationScope message.
type scope struct {
	message       []byte
	name, version string
	attributes    []otlpwire.Attribute
	isRead        bool // it is readScope
}

func (s *scope) read(message []byte) error {
	*s = scope{message: message, attributes: s.attributes[:0]}
	r := otlpwire.Read(message)
	for r.Next() {
		switch r.Number {
		case 1:
			s.name = r.Text()
		case 2:
			s.version = r.Text()
		case 3:
			a, err := otlpwire.ReadAttribute(r.Bytes())
			if err != nil {
				return err
			}
			s.attributes = append(s.attributes, a)
		case 4: // how many attributes were dropped
			r.Varint()
		}
	}
	s.isRead = s.name == readScope
	return r.Err()
}

func (s *scope) forget() {
	*s = scope{attributes: emptied(s.attributes)}
}

// add adds the entry of a LogRecord message.
func (x *translation) add(message []byte) error {
	b, record := x.share.batch, &x.record
	if err := record.read(message); err != nil {
		return err
	}
	var shortened cut
	line := record.line // a string as it is, maps and lists as JSON
	if len(line) > x.maxLineSize {
		line = cutWithMark(line, x.maxLineSize)
		shortened = cutLine
	}
	at := x.timestamp(record)
	start, apart := len(b.arena), x.apart
	if apart || !x.ownMetadata(record) {
		apart = true
		b.arena = b.arena[:start]
		cut, err := x.allMetadata(record)
		if err != nil {
			return err
		}
		if cut {
			shortened |= cutMetadata
		}
	}
	own := len(b.arena) - start
	size := sizeOfEntry(at, line, own)
	if !apart {
		size += len(b.shared[x.shared].encoded)
	}
	index := x.stream(levelOf(record.number, record.severity), at)
	e := entry{
		at: at, line: line, own: start, ownBytes: int32(own), size: int32(size), shared: x.shared, apart: apart,
		stream: index, part: x.part, cut: shortened,
	}
	s := &b.streams[index]
	s.note(at)
	s.bytes += e.framed()
	b.entries = append(b.entries, e)
	return nil
}

// allMetadata is the long way to an entry's metadata: names and limits are
// settled among all of it. It says whether any was cut.
func (x *translation) allMetadata(record *record) (cut bool, err error) {
	attributes, err := record.readAttributes()
	if err != nil {
		return false, err
	}
	m := &x.metadata
	m.reset()
	m.record(record, attributes, x.scope.isRead)
	m.resource(x.attributes)
	m.scope(&x.scope)
	x.share.batch.arena = m.appendTo(x.share.batch.arena)
	return m.cut, nil
}

// timestamp is the record's own, else when it was observed, else now.
func (t *translator) timestamp(record *record) int64 {
	at := record.time
	if at == 0 {
		at = record.observed
	}
	if at == 0 {
		return t.now().UnixNano()
	}
	return int64(at)
}

// stream returns the index of the stream for a level and time.
func (x *translation) stream(level level, at int64) int32 {
	if late := &x.share.late; at < late.before {
		return x.pastStream(level, late.stretch(at))
	}
	if known := x.recent[level]; known > 0 {
		return known - 1
	}
	index := x.find(level, 0)
	x.recent[level] = index + 1
	return index
}

func (x *translation) pastStream(level level, stretch int64) int32 {
	if known := &x.past[level]; known.stretch != stretch {
		known.stream = x.find(level, stretch)
		known.stretch = stretch
	}
	return x.past[level].stream
}

// find returns the stream of a label set, and of a stretch of time long past if
// that is not 0.
func (x *translation) find(level level, stretch int64) int32 {
	backfill := ""
	if stretch != 0 && x.share.late.label {
		backfill = stretchText(stretch)
	}
	text := x.labels.appendTo(x.text[:0], x.values, x.plain, x.share.demoted, level.String(), backfill)
	labels := len(text)
	text = binary.LittleEndian.AppendUint64(text, uint64(stretch))
	x.text = text
	return x.share.batch.stream(text[:labels], stretch, maphash.Bytes(keySeed, text))
}

// resourceKey knows a resource and scope by their content, whatever the order of
// their attributes, for the life of the process.
func (s *shared) resourceKey() uint64 {
	attributes, err := s.origin.Attributes(nil, s.resource)
	var of scope
	if err = errors.Join(err, of.read(s.scope)); err != nil {
		return 0 // cannot be: it was read before
	}
	var h maphash.Hash
	h.SetSeed(keySeed)
	hashAttributes(&h, attributes)
	if of.name == "" && of.version == "" && len(of.attributes) == 0 {
		return h.Sum64()
	}
	hashText(&h, of.name)
	hashText(&h, of.version)
	hashAttributes(&h, of.attributes)
	return h.Sum64()
}

// hashAttributes does not depend on the order of the attributes. An empty value is
// none, as everywhere in Loki.
func hashAttributes(h *maphash.Hash, attributes []otlpwire.Attribute) {
	var sum uint64
	for i := range attributes {
		value := attributes[i].Value.Text()
		if value == "" {
			continue
		}
		var one maphash.Hash
		one.SetSeed(keySeed)
		hashText(&one, attributes[i].Key)
		hashText(&one, value)
		sum += one.Sum64()
	}
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], sum)
	_, _ = h.Write(number[:])
}

func hashText(h *maphash.Hash, text string) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(text)))
	_, _ = h.Write(length[:])
	_, _ = h.WriteString(text)
}
