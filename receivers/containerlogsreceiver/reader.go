package containerlogsreceiver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"
)

const (
	// readQuantum is what one file may contribute to a sweep, so that a
	// shouting container does not keep the others waiting.
	readQuantum = 256 << 10
	// lineOverhead is room for what stands around the text of a line.
	lineOverhead = 4 << 10
	// maxPendingBytes bounds the text of unfinished records of all files.
	maxPendingBytes = 16 << 20
)

// reader discovers files and reads them into batches. All of it runs in one
// goroutine.
type reader struct {
	config    *Config
	timing    timing
	logger    *zap.Logger
	telemetry *telemetry
	delivery  *delivery

	files    []*file // in the order they are read; predecessors first
	atPath   map[string]*file
	byID     map[fileID]*file
	finished map[fileID]finished   // files read to their end
	done     map[string][]position // the last of them by path: what is in flight the table does not know
	troubled map[string]string     // path → error already said
	scans    map[string]*scan      // by path: searches beside it that have not come to an end
	looked   bool                  // since they were gone on with
	round    uint64
	watcher  *watcher         // nil: poll
	watched  bool             // every directory is
	opened   uint64           // files opened at their path so far
	troubles uint64           // how often reading failed so far
	polling  map[string]bool  // directories said to be polled
	swept    time.Time        // when positions of what is gone were last looked for
	tick     <-chan time.Time // of PollInterval
	lastLook time.Time        // of the previous discovery

	skippedFiles int // of a first start, not yet told
	skippedBytes int64

	reading *file   // the one that read works on
	limits  *limits // nil without rate_limit

	batch        *batch
	batchNumber  uint64
	touched      []*file // files whose position the batch carries
	pendingBytes int
	observed     int64 // time of the current read, ns

	readDir func(directory string) ([]os.DirEntry, error) // os.ReadDir, unless a test lets things happen meanwhile

	buffer  []byte // of readQuantum
	large   []byte // for a line longer than that, made when needed
	scratch []byte // text of a json-file line
	head    [fingerprintMaxBytes]byte
}

func newReader(config *Config, timing timing, logger *zap.Logger, telemetry *telemetry, delivery *delivery) *reader {
	return &reader{
		config: config, timing: timing, logger: logger, telemetry: telemetry, delivery: delivery,
		atPath: map[string]*file{}, byID: map[fileID]*file{}, troubled: map[string]string{},
		finished: map[fileID]finished{}, done: map[string][]position{}, polling: map[string]bool{},
		scans: map[string]*scan{}, readDir: os.ReadDir, buffer: make([]byte, readQuantum), limits: newLimits(config.RateLimit),
	}
}

// maxReplayBytes bounds how far back an unfinished record may begin: what
// follows it is read again at a restart to put it together.
func (r *reader) maxReplayBytes() int64 { return 4 * int64(r.config.MaxLineBytes) }

// run reads until ctx is done.
func (r *reader) run(ctx context.Context) {
	defer r.closeAll()
	tick := time.NewTicker(r.config.PollInterval)
	defer tick.Stop()
	r.tick = tick.C
	for {
		if err := r.readAll(ctx); err != nil {
			return
		}
		select {
		case <-r.tick:
			r.lookAgain()
		case <-r.signals():
			r.discover(false)
		case <-ctx.Done():
			return
		}
	}
}

// readAll sweeps over the files until all are at the end they had when last
// looked at, and sends off what was gathered. While that takes long, because one
// container shouts, the others' lines are sent off with every tick.
func (r *reader) readAll(ctx context.Context) error {
	for {
		if err := r.goOn(ctx); err != nil {
			return err
		}
		more, err := r.sweep(ctx)
		if err != nil {
			return err
		}
		looked := r.lookIfDue()
		if more && !looked {
			continue
		}
		if err := r.settle(ctx); err != nil {
			return err
		}
		if err := r.announceEnded(ctx); err != nil {
			return err
		}
		if err := r.cut(ctx); err != nil || !more && !looked {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// lookIfDue looks at the files when it is time, and says whether it did.
func (r *reader) lookIfDue() bool {
	select {
	case <-r.tick:
		r.lookAgain()
	case <-r.signals():
		r.discover(false)
	default:
		return false
	}
	return true
}

// sweep reads at most readQuantum bytes of each file; more says that a file has
// further lines.
func (r *reader) sweep(ctx context.Context) (more bool, err error) {
	for i := 0; i < len(r.files); i++ {
		f := r.files[i]
		if again, err := r.prepare(ctx, f); err != nil {
			return false, err
		} else if again {
			more = true
			if at := slices.Index(r.files, f); at >= 0 {
				i = at // files may have come before it
			}
			i--
			continue
		}
		if !f.begun && r.mayWait(f.path) {
			continue
		}
		if f.after != nil {
			more = more || f.after.settled() && f.after.after == nil
			continue
		}
		if f.settled() {
			continue
		}
		r.reading = f
		err := r.read(ctx, f)
		r.reading = nil
		if err != nil {
			return false, err
		}
		more = more || !f.settled()
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
	}
	return more, nil
}

// prepare sees to what must come before reading a file: the files that were at
// its path before it, and whether it still is what it was. It is called again
// when that changed something.
func (r *reader) prepare(ctx context.Context, f *file) (again bool, err error) {
	if f.chain {
		if err := r.cutOf(ctx, f.path); err != nil {
			return false, err
		}
		opened := r.scan(f, f.since, f.begin != beginSaved)
		f.chain = r.mayWait(f.path) // until the next look
		return opened, nil
	}
	if f.after != nil {
		if !f.after.settled() || f.after.after != nil {
			return false, nil
		}
		if r.observe(f.after); !f.after.settled() { // it left after it was last looked at
			return true, nil
		}
		r.inherit(f)
	}
	if !f.changed {
		return false, nil
	}
	seenEmpty, since := f.print.length == 0, f.compared
	if !r.compare(f) {
		return true, r.truncated(ctx, f)
	}
	if !seenEmpty {
		return false, nil
	}
	if f.rotated {
		return true, r.recognised(ctx, f)
	}
	// It may have been filled and copied away since it was seen empty.
	if err := r.cutOf(ctx, f.path); err != nil {
		return false, err
	}
	return r.scan(f, since, true), nil
}

// compare checks that a file that changed still is the one it was, and takes
// its fingerprint anew while it is short.
func (r *reader) compare(f *file) (same bool) {
	f.changed = false
	if f.size < f.offset {
		return false
	}
	if f.print.length == fingerprintMaxBytes && !f.settled() {
		return true // read makes sure, after it has read
	}
	now, same, err := takeFingerprint(f.handle, f.print, f.size, &r.head)
	if err != nil {
		r.trouble(f.path, err)
		return true
	}
	if same {
		f.print, f.compared = now, f.modified
	}
	return same
}

// read takes the next lines of a file. An error means that the receiver stops;
// a failure to read is told to the operator and tried again.
func (r *reader) read(ctx context.Context, f *file) error {
	buffer := r.buffer
	if f.large {
		if r.large == nil {
			r.large = make([]byte, int(r.config.MaxLineBytes)+lineOverhead+readQuantum)
		}
		buffer = r.large
	}
	want := min(int64(len(buffer)), f.size-f.offset)
	n, err := f.handle.ReadAt(buffer[:want], f.offset)
	if errors.Is(err, errGzipDamaged) {
		r.damaged(f, f.offset+int64(n), err)
	} else if err != nil && !errors.Is(err, io.EOF) {
		r.trouble(f.path, err)
		f.failed, f.scanned = true, f.size
		return nil
	} else {
		delete(r.troubled, f.path)
	}
	if same, err := r.stillThe(f, buffer[:n]); err != nil {
		r.trouble(f.path, err)
		f.failed, f.scanned = true, f.size
		return nil
	} else if !same { // overwritten before it was read
		return r.truncated(ctx, f)
	}
	f.begun, f.compared = f.begun || n > 0, f.modified
	if int64(n) < want { // cut off since it was looked at; discovery will see
		f.size = f.offset + int64(n)
	}
	r.observed = time.Now().UnixNano()
	begin := f.offset
	rest := buffer[:n]
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		f.large = false
		if err := r.line(ctx, f, rest[:i], i+1); err != nil {
			return err
		}
		rest = rest[i+1:]
	}
	if len(rest) == len(buffer) {
		if !f.large {
			f.large = true
			return nil
		}
		if err := r.longPiece(ctx, f, rest); err != nil {
			return err
		}
		f.scanned = f.offset
		return nil
	}
	f.scanned = begin + int64(n)
	return nil
}

// stillThe makes sure that the text just read at the file's offset is of the file
// whose fingerprint is known; at the beginning it takes the fingerprint of what
// was read.
func (r *reader) stillThe(f *file, text []byte) (bool, error) {
	if f.offset == 0 {
		known := f.print.length
		if len(text) < known || hashOf(text[:known]) != f.print.hash {
			return false, nil
		}
		head := text[:min(len(text), fingerprintMaxBytes)]
		f.print = fingerprint{length: len(head), hash: hashOf(head)}
	}
	_, same, err := takeFingerprint(f.handle, f.print, 0, &r.head)
	return same, err
}

// damaged tells that a compressed file ends before its time.
func (r *reader) damaged(f *file, end int64, err error) {
	r.telemetry.readErrors.Add(context.Background(), 1)
	r.logger.Error("a compressed container log is damaged; what its container wrote after this offset is lost",
		zap.String("path", f.path), zap.Int64("offset", end), zap.Error(err))
}

// trouble tells of a file that cannot be read: once, until it can be again.
func (r *reader) trouble(path string, err error) {
	r.telemetry.readErrors.Add(context.Background(), 1)
	r.troubles++
	if r.troubled[path] == err.Error() {
		return
	}
	r.troubled[path] = err.Error()
	r.logger.Warn("cannot read container log; it is tried again", zap.String("path", path), zap.Error(err))
}

// closeAll lets go of every file.
func (r *reader) closeAll() {
	if r.watcher != nil {
		r.watcher.close()
		r.watcher = nil
	}
	for _, f := range r.files {
		_ = f.handle.Close()
	}
	r.files = nil
}

// touch makes the batch carry the position of a file.
func (r *reader) touch(f *file) {
	if !f.touched {
		f.touched = true
		r.touched = append(r.touched, f)
	}
}

// emit puts a record into the batch, which is cut first when it would grow over
// a limit. The file's state must not yet count the record as read.
func (r *reader) emit(ctx context.Context, f *file, rec record, head, tail []byte) error {
	if r.limits != nil {
		if leftOut, err := r.limit(ctx, f, &rec); leftOut || err != nil {
			return err
		}
	}
	if b := r.batch; b != nil && !b.empty() &&
		(len(b.records) >= r.config.Batch.MaxLines || len(b.text)+len(head)+len(tail) > int(r.config.Batch.MaxBytes)) {
		if err := r.cut(ctx); err != nil {
			return err
		}
	}
	if r.batch == nil {
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	if f.batch != r.batch.number {
		f.batch, f.sourceAt = r.batch.number, int32(len(r.batch.sources))
		r.batch.sources = append(r.batch.sources, &f.source)
	}
	r.touch(f)
	rec.observed, rec.source = r.observed, f.sourceAt
	if rec.time == 0 {
		rec.time = r.observed
	}
	r.batch.add(rec, head, tail)
	return nil
}

// idle is what goes on while a batch waits for the pipeline.
func (r *reader) idle() idle {
	return idle{r.tick, r.lookAgain, r.signals(), func() { r.discover(false) }}
}

func (r *reader) begin(ctx context.Context) (err error) {
	if r.batch, err = r.delivery.take(ctx, r.idle()); err != nil {
		r.batch = nil
		return err
	}
	r.batchNumber++
	r.batch.number = r.batchNumber
	return nil
}

// cutOf sends off the batch if it carries positions of files that are or were at
// a path: what lies beside the path is judged by what is known of those. Most files
// have no part in the batch, and after a start with hundreds of files a batch for
// each would take minutes.
func (r *reader) cutOf(ctx context.Context, path string) error {
	if !slices.ContainsFunc(r.touched, func(f *file) bool { return f.path == path }) {
		return nil
	}
	return r.cut(ctx)
}

// cut sends off the batch with the positions it covers.
func (r *reader) cut(ctx context.Context) error {
	if len(r.touched) == 0 && (r.batch == nil || r.batch.empty()) {
		return nil
	}
	if r.batch == nil { // positions alone
		if err := r.begin(ctx); err != nil {
			return err
		}
	}
	for _, f := range r.touched {
		f.touched = false
		r.batch.marks = append(r.batch.marks, mark{position: f.position(), gone: f.gone(), fresh: f.fresh})
		f.fresh = false
	}
	clear(r.touched)
	r.touched = r.touched[:0]
	b := r.batch
	r.batch = nil
	return r.delivery.send(ctx, b, r.idle())
}
