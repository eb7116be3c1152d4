package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/longhaul/longhaul/internal/frame"
)

// ErrNotSpool means a directory is not that of a spool.
var ErrNotSpool = errors.New("not a spool")

// Inspection looks into the directory of a spool from outside: it takes no
// lock, writes nothing and repairs nothing, so that a collector may have the
// spool open meanwhile. What it tells is then how things stood at one moment
// during the look.
type Inspection struct {
	Dir    string
	Epoch  frame.Epoch // 0 if nothing tells
	Layout int         // version in spool.json, 0 if that cannot be read
	Owner  string      // whose it is, as cluster/node; empty if nobody's
	Copied bool        // spool.json says that it was written elsewhere
	InUse  bool        // a process was seen to hold the spool; false may also mean that none can be seen
	PID    int         // what the holder wrote of itself; 0 if unknown
	// Damage to what stands beside the lanes.
	Damage    []Damage
	Strangers []string // files that are no part of a spool, relative to Dir

	QuarantineFiles int
	QuarantineBytes int64

	spool *Spool // never opened; carries the lanes over a file system that cannot write
}

// Counts measures a set of frames.
type Counts struct {
	Frames int
	Items  uint64
	Bytes  int64
}

// NumberRange is a range of frame numbers, both ends included.
type NumberRange = numberRange

// Damage is something in a spool that is not as it was written.
type Damage struct {
	File   string // relative to the spool's directory
	Offset int64
	Bytes  int64 // 0 if something is missing there
	What   string
	// Numbers of the frames concerned, and their items; 0 if unreadable.
	From, To uint64
	Items    uint64
}

func (d *Damage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: offset %d", d.File, d.Offset)
	if d.Bytes > 0 {
		fmt.Fprintf(&b, ", %d bytes", d.Bytes)
	}
	switch {
	case d.From == 0:
	case d.From == d.To:
		fmt.Fprintf(&b, ": frame %d", d.From)
	default:
		fmt.Fprintf(&b, ": frames %d to %d", d.From, d.To)
	}
	if d.Items > 0 {
		fmt.Fprintf(&b, " (%d items)", d.Items)
	}
	return b.String() + ": " + d.What
}

// Inspect looks at a spool's directory. The lanes' contents are left for
// Examine.
func Inspect(dir string) (*Inspection, error) {
	in := &Inspection{Dir: dir, spool: &Spool{
		opts:  Options{Dir: dir, fs: readOnlyFS{}, now: time.Now},
		lanes: make(map[frame.Lane]*lane),
	}}
	if err := in.list(); err != nil {
		return nil, explainInspect(dir, err)
	}
	if err := in.identify(); err != nil {
		return nil, explainInspect(dir, err)
	}
	text, err := readFile(in.spool.opts.fs, filepath.Join(dir, registryName), 8<<20)
	if err == nil && parseRegistry(text) == nil {
		in.Damage = append(in.Damage, Damage{File: registryName, Bytes: int64(len(text)), What: "it cannot be read; the next start makes it again from the lanes"})
	}
	in.InUse, in.PID = holder(filepath.Join(dir, lockName))
	return in, nil
}

func explainInspect(dir string, err error) error {
	switch {
	case errors.Is(err, ErrNotSpool):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("spool directory %s: no such directory: name the one the collector is configured with", dir)
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("spool directory %s: it, or a part of its path, is a file: name the directory that holds spool.json", dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("spool directory %s: this process, %s, may not read there: run as the user the collector runs as (%w)", dir, whoami(), err)
	default:
		return fmt.Errorf("spool directory %s: %w", dir, err)
	}
}

// list finds the lanes and their segment files, the quarantine and strangers.
func (in *Inspection) list() error {
	entries, err := os.ReadDir(in.Dir)
	if err != nil {
		return err
	}
	ours := false
	for _, entry := range entries {
		name := entry.Name()
		id, isLane := parseLaneDirName(name)
		switch {
		case isLane && entry.IsDir():
			l := newLane(id, frame.Live, in.Dir)
			known, strangers, err := in.listLane(l)
			if err != nil {
				return err
			}
			ours = ours || known
			in.Strangers = append(in.Strangers, strangers...)
			in.spool.lanes[id] = l
		case name == identityName || name == lockName || name == registryName:
			ours = ours || name == identityName
		case name == quarantineName && entry.IsDir():
			in.measureQuarantine()
		case name == stateName && entry.IsDir():
		case !strings.HasSuffix(name, ".tmp"):
			in.Strangers = append(in.Strangers, name)
		}
	}
	if !ours {
		return in.notSpool("it has neither spool.json nor lanes such as logs-1")
	}
	return nil
}

func (in *Inspection) notSpool(why string) error {
	return fmt.Errorf("%s is %w: %s: name the directory the collector is configured with", in.Dir, ErrNotSpool, why)
}

// listLane finds the lane's segment files, in order. known reports whether
// there is anything of a spool's.
func (in *Inspection) listLane(l *lane) (known bool, strangers []string, err error) {
	entries, err := os.ReadDir(l.dir)
	if err != nil {
		return false, nil, err
	}
	l.segments = nil
	for _, entry := range entries {
		first, ok := parseSegmentName(entry.Name())
		switch {
		case ok && entry.Type().IsRegular():
			seg := newSegment(l.dir, first)
			if info, err := entry.Info(); err == nil {
				seg.size, seg.appended = info.Size(), info.ModTime()
			}
			l.segments = append(l.segments, seg)
			known = true
		case entry.Name() == ledgerName:
			known = true
		case isIndexName(entry.Name()):
		case !strings.HasSuffix(entry.Name(), newSuffix):
			strangers = append(strangers, in.relative(filepath.Join(l.dir, entry.Name())))
		}
	}
	sort.Slice(l.segments, func(i, j int) bool { return l.segments[i].first < l.segments[j].first })
	return known, strangers, nil
}

// retired says that a lane's files are gone by now: confirmed to its end, it was
// deleted after it had been listed.
func (in *Inspection) retired(l *lane) bool {
	_, _, err := in.listLane(l)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(l.segments) == 0
}

func (in *Inspection) measureQuarantine() {
	entries, err := os.ReadDir(filepath.Join(in.Dir, quarantineName))
	if err != nil {
		return
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() {
			in.QuarantineFiles++
			in.QuarantineBytes += info.Size()
		}
	}
}

// identify reads spool.json or, failing that, asks the lanes for the epoch.
func (in *Inspection) identify() error {
	id, place, whole, err := readIdentity(in.spool.opts.fs, filepath.Join(in.Dir, identityName))
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	what := "it is missing; the next start makes it again from the lanes"
	if err == nil {
		what = "it cannot be read; the next start makes it again from the lanes"
	}
	if whole {
		if id.Version > layoutVersion {
			return fmt.Errorf("it was made by a newer longhaul (layout %d, this one knows %d): use that version's program", id.Version, layoutVersion)
		}
		if epoch, err := frame.ParseEpoch(id.Epoch); err == nil {
			in.Epoch, in.Layout, in.Owner, in.spool.epoch = epoch, id.Version, id.Owner, epoch
			in.Copied = id.Place != "" && place != "" && id.Place != place
			return nil
		}
	}
	if len(in.spool.lanes) == 0 {
		return in.notSpool("spool.json is not one of longhaul's, and there are no lanes")
	}
	in.Epoch = in.spool.epochFromLanes()
	in.spool.epoch = in.Epoch
	in.Damage = append(in.Damage, Damage{File: identityName, What: what})
	return nil
}

// Lanes lists the lanes by signal, then age.
func (in *Inspection) Lanes() []frame.Lane { return in.spool.Lanes() }

// LoadState returns what the spool's user last kept with SaveState;
// fs.ErrNotExist if nothing.
func (in *Inspection) LoadState(name string) ([]byte, error) { return in.spool.LoadState(name) }

// Class says what a lane is now: the newest of its signal is live, the others were
// sealed.
func (in *Inspection) Class(id frame.Lane) frame.Class {
	if newest := in.spool.newestLane(id.Signal); newest != nil && newest.id.Seq > id.Seq {
		return frame.Backlog
	}
	return frame.Live
}

// Bytes measures the segment files as they were listed.
func (in *Inspection) Bytes() (sum int64) {
	for _, l := range in.spool.lanes {
		for _, seg := range l.segments {
			sum += seg.size
		}
	}
	return sum
}

func (in *Inspection) relative(path string) string {
	if name, err := filepath.Rel(in.Dir, path); err == nil {
		return name
	}
	return path
}

// readOnlyFS is a disk that takes no writes, whatever is tried through it.
type readOnlyFS struct{ osFS }

func (readOnlyFS) MkdirAll(string) error       { return syscall.EROFS }
func (readOnlyFS) Rename(string, string) error { return syscall.EROFS }
func (readOnlyFS) Remove(string) error         { return syscall.EROFS }
func (readOnlyFS) SyncDir(string) error        { return syscall.EROFS }

func (readOnlyFS) OpenFile(path string, flag int) (file, error) {
	if flag != os.O_RDONLY {
		return nil, syscall.EROFS
	}
	// Without O_NONBLOCK opening a pipe would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return osFile{f}, nil
}
