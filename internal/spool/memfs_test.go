package spool

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memFS is a disk with a volatile cache: what is written is seen at once, and
// durable only after Sync (content) and SyncDir (names). powerCut gives the
// disk that comes up after the power has gone: of what was not synced, each
// write is there, missing or cut short, independently of the others, and of
// each directory's changes some first ones.
//
// It can refuse operations, fill up, and fail an fsync the way Linux does: part
// of the data may have reached the disk, the rest never will, and the next
// fsync reports success.
type memFS struct {
	mu     sync.Mutex
	rng    *rand.Rand
	dirs   map[string]*memDir
	ops    int
	cutAt  int // at this operation the power goes; 0 is never
	dead   bool
	space  int64 // bytes; 0 is without bound
	refuse func(op, path string) error
	ghosts map[string]*memDir // removed, and not yet durably so
	nodes  int
}

type memDir struct {
	now, durable map[string]*memNode
	pending      []func(map[string]*memNode)
	durableSelf  bool // its own name survives
}

type memNode struct {
	data, durable []byte
	pending       []memWrite
	links         int
	modified      time.Time
	id            int // also after a power cut
}

// memWrite is a write, or a truncation to offset when data is nil.
type memWrite struct {
	offset int64
	data   []byte
}

func (w memWrite) apply(to []byte) []byte {
	if w.data == nil {
		if int64(len(to)) > w.offset {
			return to[:w.offset:w.offset]
		}
		return append(to, make([]byte, w.offset-int64(len(to)))...)
	}
	if end := w.offset + int64(len(w.data)); end > int64(len(to)) {
		to = append(to, make([]byte, end-int64(len(to)))...)
	}
	copy(to[w.offset:], w.data)
	return to
}

func newMemFS(seed uint64) *memFS {
	return &memFS{rng: rand.New(rand.NewPCG(seed, 1)), ghosts: map[string]*memDir{}, dirs: map[string]*memDir{"/": {now: map[string]*memNode{}, durable: map[string]*memNode{}, durableSelf: true}}}
}

// begin counts an operation and says whether it may go on.
func (m *memFS) begin(op, path string) error {
	m.ops++
	if m.cutAt > 0 && m.ops >= m.cutAt {
		m.dead = true
	}
	if m.dead {
		return syscall.EIO
	}
	if m.refuse != nil {
		if err := m.refuse(op, path); err != nil {
			return &fs.PathError{Op: op, Path: path, Err: err}
		}
	}
	return nil
}

func (m *memFS) used() (n int64) {
	for _, d := range m.dirs {
		for _, node := range d.now {
			n += int64(len(node.data))
		}
	}
	return n
}

// powerCut returns the disk as found when the power is back.
func (m *memFS) powerCut() *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS(m.rng.Uint64())
	copies := make(map[*memNode]*memNode)
	after.nodes = m.nodes
	found := maps.Clone(m.dirs)
	for path, d := range m.ghosts {
		if found[path] == nil && m.rng.IntN(2) == 0 {
			found[path] = d
		}
	}
	paths := slices.Sorted(maps.Keys(found))
	for _, path := range paths {
		d := found[path]
		// A directory nobody synced may be there all the same, if its own is.
		if !d.durableSelf && (m.rng.IntN(2) == 0 || after.dirs[filepath.Dir(path)] == nil) {
			continue
		}
		names := make(map[string]*memNode)
		for name, node := range d.durable {
			names[name] = node
		}
		for _, change := range d.pending[:m.rng.IntN(len(d.pending)+1)] {
			change(names)
		}
		nd := &memDir{now: map[string]*memNode{}, durable: map[string]*memNode{}, durableSelf: true}
		for name, node := range names {
			c := copies[node]
			if c == nil {
				content := m.survive(node)
				c = &memNode{data: content, durable: append([]byte(nil), content...), links: 1, modified: node.modified, id: node.id}
				copies[node] = c
			}
			nd.now[name], nd.durable[name] = c, c
		}
		after.dirs[path] = nd
	}
	return after
}

// survive draws what of a file's unsynced writes has reached the disk.
func (m *memFS) survive(node *memNode) []byte {
	content := append([]byte(nil), node.durable...)
	for _, w := range node.pending {
		switch m.rng.IntN(4) {
		case 0:
		case 1:
			if w.data != nil {
				w.data = w.data[:m.rng.IntN(len(w.data)+1)]
			}
			content = w.apply(content)
		default:
			content = w.apply(content)
		}
	}
	return content
}

func (m *memFS) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("mkdir", dir); err != nil {
		return err
	}
	for d := dir; m.dirs[d] == nil; d = filepath.Dir(d) {
		m.dirs[d] = &memDir{now: map[string]*memNode{}, durable: map[string]*memNode{}}
	}
	return nil
}

func (m *memFS) dir(path string) (*memDir, string, error) {
	d := m.dirs[filepath.Dir(path)]
	if d == nil {
		return nil, "", &fs.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
	}
	return d, filepath.Base(path), nil
}

func (d *memDir) change(f func(map[string]*memNode)) {
	f(d.now)
	d.pending = append(d.pending, f)
}

func (m *memFS) OpenFile(path string, flag int) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("open", path); err != nil {
		return nil, err
	}
	d, name, err := m.dir(path)
	if err != nil {
		return nil, err
	}
	node := d.now[name]
	if node == nil {
		if flag&os.O_CREATE == 0 {
			return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.ENOENT}
		}
		m.nodes++
		node = &memNode{links: 1, modified: time.Now(), id: m.nodes}
		d.change(func(names map[string]*memNode) { names[name] = node })
	}
	if flag&os.O_TRUNC != 0 && len(node.data) > 0 {
		node.write(memWrite{offset: 0})
	}
	return &memFile{fs: m, path: path, node: node}, nil
}

func (n *memNode) write(w memWrite) {
	n.data = w.apply(n.data)
	n.pending = append(n.pending, w)
	n.modified = time.Now()
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("rename", to); err != nil {
		return err
	}
	source, oldName, err := m.dir(from)
	if err != nil {
		return err
	}
	target, newName, err := m.dir(to)
	if err != nil {
		return err
	}
	node := source.now[oldName]
	if node == nil {
		return &fs.PathError{Op: "rename", Path: from, Err: syscall.ENOENT}
	}
	if old := target.now[newName]; old != nil {
		old.links--
	}
	if source == target {
		source.change(func(names map[string]*memNode) { delete(names, oldName); names[newName] = node })
		return nil
	}
	target.change(func(names map[string]*memNode) { names[newName] = node })
	source.change(func(names map[string]*memNode) { delete(names, oldName) })
	return nil
}

func (m *memFS) Remove(path string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("remove", path); err != nil {
		return err
	}
	d, name, err := m.dir(path)
	if err != nil {
		return err
	}
	if dir := m.dirs[path]; dir != nil {
		if len(dir.now) > 0 {
			return &fs.PathError{Op: "remove", Path: path, Err: syscall.ENOTEMPTY}
		}
		delete(m.dirs, path)
		if dir.durableSelf {
			m.ghosts[path] = dir
		}
		return nil
	}
	node := d.now[name]
	if node == nil {
		return &fs.PathError{Op: "remove", Path: path, Err: syscall.ENOENT}
	}
	node.links--
	d.change(func(names map[string]*memNode) { delete(names, name) })
	return nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("syncdir", dir); err != nil {
		return err
	}
	d := m.dirs[dir]
	if d == nil {
		return syscall.ENOENT
	}
	for _, change := range d.pending {
		change(d.durable)
	}
	d.pending = nil
	for path, child := range m.dirs {
		if filepath.Dir(path) == dir {
			child.durableSelf = true
		}
	}
	for path := range m.ghosts {
		if filepath.Dir(path) == dir {
			delete(m.ghosts, path)
		}
	}
	return nil
}

func (m *memFS) ReadDir(dir string) ([]fs.DirEntry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin("readdir", dir); err != nil {
		return nil, err
	}
	d := m.dirs[dir]
	if d == nil {
		return nil, &fs.PathError{Op: "readdir", Path: dir, Err: syscall.ENOENT}
	}
	var entries []fs.DirEntry
	for name, node := range d.now {
		entries = append(entries, fs.FileInfoToDirEntry(memInfo{name: name, size: int64(len(node.data)), modified: node.modified}))
	}
	for path := range m.dirs {
		if filepath.Dir(path) == dir && path != dir {
			entries = append(entries, fs.FileInfoToDirEntry(memInfo{name: filepath.Base(path), dir: true}))
		}
	}
	sort.Slice(entries, func(i, j int) bool { return entries[i].Name() < entries[j].Name() })
	return entries, nil
}

func (m *memFS) Space(string) (free, total int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.space == 0 {
		return 1 << 50, 0, nil // so large that no default depends on it
	}
	return max(0, m.space-m.used()), m.space, nil
}

func (m *memFS) Lock(path string) (io.Closer, error) { return m.OpenFile(path, os.O_CREATE) }

type memFile struct {
	fs   *memFS
	path string
	node *memNode
}

func (f *memFile) ReadAt(b []byte, offset int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.begin("read", f.path); err != nil {
		return 0, err
	}
	if offset >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, offset int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.begin("write", f.path); err != nil {
		return 0, err
	}
	if grow := offset + int64(len(b)) - int64(len(f.node.data)); f.fs.space > 0 && grow > 0 && f.fs.used()+grow > f.fs.space {
		part := max(0, int64(len(b))-(f.fs.used()+grow-f.fs.space))
		if part > 0 {
			f.node.write(memWrite{offset, append([]byte{}, b[:part]...)})
		}
		return int(part), &fs.PathError{Op: "write", Path: f.path, Err: syscall.ENOSPC}
	}
	f.node.write(memWrite{offset, append([]byte{}, b...)})
	return len(b), nil
}

func (f *memFile) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.begin("truncate", f.path); err != nil {
		return err
	}
	f.node.write(memWrite{offset: size})
	return nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.begin("sync", f.path); err != nil {
		// What the device got of it stays; what it did not is forgotten.
		if !f.fs.dead {
			f.node.durable = f.fs.survive(f.node)
			f.node.pending = nil
		}
		return err
	}
	for _, w := range f.node.pending {
		f.node.durable = w.apply(f.node.durable)
	}
	f.node.pending = nil
	return nil
}

func (f *memFile) Identity() string { return fmt.Sprint("node ", f.node.id) }

func (f *memFile) Close() error { return nil }

func (f *memFile) Unlinked() bool {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return f.node.links == 0
}

func (f *memFile) Stat() (fs.FileInfo, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return memInfo{name: filepath.Base(f.path), size: int64(len(f.node.data)), modified: f.node.modified}, nil
}

type memInfo struct {
	name     string
	size     int64
	modified time.Time
	dir      bool
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) ModTime() time.Time { return i.modified }
func (i memInfo) IsDir() bool        { return i.dir }
func (i memInfo) Sys() any           { return nil }
func (i memInfo) Mode() fs.FileMode {
	if i.dir {
		return fs.ModeDir | 0o755
	}
	return 0o644
}

func isSegment(path string) bool { return strings.HasSuffix(path, segmentSuffix) }
