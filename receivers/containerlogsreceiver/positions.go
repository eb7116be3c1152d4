package containerlogsreceiver

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	positionFileVersion = 2
	// keepClosed is how many files that were read to their end are remembered
	// per path, so that a rotated file is not taken for a new one. The kubelet
	// keeps four.
	keepClosed = 10
	// keepUnseen is how long the position of a file that cannot be found is
	// kept: its file system may be mounted late.
	keepUnseen = 24 * time.Hour
)

// position is how far one file has been read. Everything before Offset is
// durable, except the unfinished records that begin at Partial.
type position struct {
	Path             string    `json:"path"`
	Device           uint64    `json:"device"`
	Inode            uint64    `json:"inode"`
	Fingerprint      hexNumber `json:"fingerprint"`
	FingerprintBytes int       `json:"fingerprint_bytes"`
	Offset           int64     `json:"offset"`
	Partial          *[2]int64 `json:"partial,omitempty"`
	Carried          *[2]int   `json:"carried,omitempty"` // what the records at Partial were when they came from the file before
	Modified         int64     `json:"modified"`
	Closed           bool      `json:"closed,omitempty"`
	UnseenSince      int64     `json:"unseen_since,omitempty"` // Unix seconds
	Compressed       bool      `json:"compressed,omitempty"`   // Modified is when it was compressed, not when it was written to
	Unfound          int64     `json:"unfound,omitempty"`      // beside the path there may be a file with unread lines, written to since then, that was not found
	Former           bool      `json:"former,omitempty"`       // its inode holds another text now; a copy of its own may lie beside
}

func (p *position) id() fileID { return fileID{p.Device, p.Inode} }

func (p *position) fingerprint() fingerprint {
	return fingerprint{length: p.FingerprintBytes, hash: uint64(p.Fingerprint)}
}

// isBehind says that of two positions in the same text p is the later one.
func (p *position) isBehind(other *position) bool {
	return p.Offset > other.Offset || p.Offset == other.Offset && p.Partial == nil && other.Partial != nil
}

// hexNumber is a uint64 that JSON numbers could not carry exactly.
type hexNumber uint64

func (n hexNumber) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%016x", uint64(n)), nil }

func (n *hexNumber) UnmarshalText(text []byte) error {
	_, err := fmt.Sscanf(string(text), "%x", (*uint64)(n))
	return err
}

type positionFile struct {
	Version int             `json:"version"`
	CRC32C  string          `json:"crc32c"`
	Files   json.RawMessage `json:"files"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorruptPositions says that the position file does not parse or match its
// checksum.
var errCorruptPositions = errors.New("position file is corrupt")

// positions is the table of read positions and its file.
type positions struct {
	path string

	mu      sync.Mutex
	table   map[fileID]position
	former  map[string][]position // by path: what inodes held before, oldest first
	unfound map[string]int64      // by path: Unfound
}

func newPositions(path string) *positions {
	return &positions{path: path, table: map[fileID]position{}, former: map[string][]position{}, unfound: map[string]int64{}}
}

// loadPositions reads the table. first says that there was no position file. A
// corrupt file is moved aside, and the error, which wraps errCorruptPositions
// and names the place, comes with an empty usable table.
func loadPositions(path string) (p *positions, first bool, err error) {
	p = newPositions(path)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, true, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("read position file: %w", err)
	}
	list, problem := parsePositions(text)
	if problem != nil {
		aside := fmt.Sprintf("%s.corrupt-%s", path, time.Now().UTC().Format("20060102T150405.000000000"))
		if err := os.Rename(path, aside); err != nil {
			return nil, false, fmt.Errorf("move corrupt position file aside: %w", err)
		}
		return p, false, fmt.Errorf("%w (%w); kept as %s", errCorruptPositions, problem, aside)
	}
	now := time.Now().Unix()
	for _, entry := range list {
		if entry.Former {
			p.former[entry.Path] = append(p.former[entry.Path], entry)
			continue
		}
		if entry.Unfound != 0 {
			p.unfound[entry.Path] = entry.Unfound // all of a path have the same
			entry.Unfound = 0
		}
		if entry.UnseenSince == 0 {
			entry.UnseenSince = now
		}
		p.table[entry.id()] = entry
	}
	return p, false, nil
}

func parsePositions(text []byte) ([]position, error) {
	var file positionFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	if file.Version != positionFileVersion {
		return nil, fmt.Errorf("version %d is not %d", file.Version, positionFileVersion)
	}
	if sum := checksum(file.Files); sum != file.CRC32C {
		return nil, fmt.Errorf("checksum is %s, not %s", sum, file.CRC32C)
	}
	var list []position
	if err := json.Unmarshal(file.Files, &list); err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Offset < 0 || list[i].FingerprintBytes < 0 || list[i].FingerprintBytes > fingerprintMaxBytes {
			return nil, fmt.Errorf("entry %d is out of range", i)
		}
		if c := list[i].Carried; c != nil && (carryOf(c[0]).trace > traceGoroutine || carryOf(c[1]).trace > traceGoroutine || c[0] < 0 || c[1] < 0) {
			return nil, fmt.Errorf("entry %d carries what is unknown", i)
		}
	}
	return list, nil
}

func checksum(files []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(files, castagnoli)) }

// find returns the position of a file known by device and inode, or, because
// device numbers may change with a reboot, by path and inode. The caller
// compares the fingerprint.
func (p *positions) find(id fileID, path string) (position, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if entry, ok := p.table[id]; ok {
		return entry, true
	}
	for _, entry := range p.table {
		if entry.Inode == id.inode && entry.Path == path && entry.UnseenSince != 0 {
			return entry, true
		}
	}
	return position{}, false
}

// claim notes that a file on disk was recognised as the one of entry, which
// from now on is known as id.
func (p *positions) claim(entry position, id fileID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.table, entry.id())
	entry.Device, entry.Inode, entry.UnseenSince = id.device, id.inode, 0
	p.table[id] = entry
}

// lastModified is the newest modification time noted for files of a path.
func (p *positions) lastModified(path string) (time.Time, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest, found := int64(0), false
	for _, entry := range p.table {
		if entry.Path == path && !entry.Compressed {
			newest, found = max(newest, entry.Modified), true
		}
	}
	return time.Unix(0, newest), found
}

// at lists the positions of a path, also of texts that are elsewhere now.
func (p *positions) at(path string) (list []position) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, entry := range p.table {
		if entry.Path == path {
			list = append(list, entry)
		}
	}
	return append(list, p.former[path]...)
}

// noteUnfound notes that not every file beside a path was found that was written to
// since a time: whatever is read meanwhile, a kill must not make it look too old.
func (p *positions) noteUnfound(path string, since time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unfound[path] = max(1, since.UnixNano())
	if since.Before(time.Unix(0, 1)) { // out of the range of nanoseconds
		p.unfound[path] = 1
	}
}

// foundAll takes that back.
func (p *positions) foundAll(path string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.unfound, path)
}

// unfoundSince is what was noted.
func (p *positions) unfoundSince(path string) (since time.Time, noted bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	nanoseconds, noted := p.unfound[path]
	return time.Unix(0, nanoseconds), noted
}

// retire keeps the position of a text whose inode got another one.
func (p *positions) retire(entry position) {
	if entry.FingerprintBytes == 0 {
		return
	}
	entry.Former, entry.Closed = true, true
	kept := append(p.former[entry.Path], entry)
	p.former[entry.Path] = kept[max(0, len(kept)-keepClosed):]
}

// apply advances the table.
func (p *positions) apply(marks []mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range marks {
		m := &marks[i]
		if before, known := p.table[m.position.id()]; known && m.fresh {
			p.retire(before)
		}
		if m.gone {
			delete(p.table, m.position.id())
			continue
		}
		p.table[m.position.id()] = m.position
		if m.position.Closed {
			p.forgetOldClosed(m.position.Path)
		}
	}
}

func (p *positions) forgetOldClosed(path string) {
	var closed []position
	for _, entry := range p.table {
		if entry.Closed && entry.Path == path {
			closed = append(closed, entry)
		}
	}
	if len(closed) <= keepClosed {
		return
	}
	slices.SortFunc(closed, func(a, b position) int { return cmp.Compare(a.Modified, b.Modified) })
	for _, entry := range closed[:len(closed)-keepClosed] {
		delete(p.table, entry.id())
	}
}

// noteMissing begins to count the time of positions whose directory is not
// there, and stops it for those whose directory is. The caller makes sure that
// it is not called often.
func (p *positions) noteMissing(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for path := range p.former {
		if _, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
			delete(p.former, path)
		}
	}
	for id, entry := range p.table {
		if !entry.Closed {
			continue
		}
		_, err := os.Stat(filepath.Dir(entry.Path))
		missing := errors.Is(err, fs.ErrNotExist)
		if missing == (entry.UnseenSince != 0) {
			continue
		}
		entry.UnseenSince = 0
		if missing {
			entry.UnseenSince = now.Unix()
		}
		p.table[id] = entry
	}
}

// save writes the table so that after a crash the file is either the old or the
// new one, whole.
func (p *positions) save() error {
	content, err := p.encode(time.Now())
	if err != nil {
		return fmt.Errorf("encode positions: %w", err)
	}
	temporary := p.path + ".tmp"
	if err := writeSynced(temporary, content); err != nil {
		return fmt.Errorf("write positions: %w", err)
	}
	if err := os.Rename(temporary, p.path); err != nil {
		return fmt.Errorf("replace position file: %w", err)
	}
	if err := syncDirectory(filepath.Dir(p.path)); err != nil {
		return fmt.Errorf("sync directory of position file: %w", err)
	}
	return nil
}

func (p *positions) encode(now time.Time) ([]byte, error) {
	p.mu.Lock()
	list := make([]position, 0, len(p.table))
	for id, entry := range p.table {
		if entry.UnseenSince != 0 && now.Sub(time.Unix(entry.UnseenSince, 0)) > keepUnseen {
			delete(p.table, id)
			continue
		}
		entry.Unfound = p.unfound[entry.Path]
		list = append(list, entry)
	}
	for _, entries := range p.former {
		list = append(list, entries...)
	}
	p.mu.Unlock()
	slices.SortStableFunc(list, func(a, b position) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Device, b.Device), cmp.Compare(a.Inode, b.Inode))
	})
	files := []byte{'['}
	for i := range list {
		if i > 0 {
			files = append(files, ',')
		}
		var err error
		if files, err = list[i].appendJSON(files); err != nil {
			return nil, err
		}
	}
	files = append(files, ']')
	content := fmt.Appendf(nil, `{"version":%d,"crc32c":"%s","files":`, positionFileVersion, checksum(files))
	return append(append(content, files...), '}'), nil
}

// appendJSON writes what json.Marshal would: the table is written as often as
// positions advance, and is as long as a node has files.
func (p *position) appendJSON(out []byte) ([]byte, error) {
	path, err := json.Marshal(p.Path)
	if err != nil {
		return nil, err
	}
	number := func(name string, n int64) { out = strconv.AppendInt(append(out, name...), n, 10) }
	out = append(append(out, `{"path":`...), path...)
	out = strconv.AppendUint(append(out, `,"device":`...), p.Device, 10)
	out = strconv.AppendUint(append(out, `,"inode":`...), p.Inode, 10)
	out = fmt.Appendf(out, `,"fingerprint":"%016x"`, uint64(p.Fingerprint))
	number(`,"fingerprint_bytes":`, int64(p.FingerprintBytes))
	number(`,"offset":`, p.Offset)
	if p.Partial != nil {
		number(`,"partial":[`, p.Partial[0])
		number(`,`, p.Partial[1])
		out = append(out, ']')
	}
	if p.Carried != nil {
		number(`,"carried":[`, int64(p.Carried[0]))
		number(`,`, int64(p.Carried[1]))
		out = append(out, ']')
	}
	number(`,"modified":`, p.Modified)
	if p.Closed {
		out = append(out, `,"closed":true`...)
	}
	if p.UnseenSince != 0 {
		number(`,"unseen_since":`, p.UnseenSince)
	}
	if p.Compressed {
		out = append(out, `,"compressed":true`...)
	}
	if p.Unfound != 0 {
		number(`,"unfound":`, p.Unfound)
	}
	if p.Former {
		out = append(out, `,"former":true`...)
	}
	return append(out, '}'), nil
}

func writeSynced(path string, content []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
