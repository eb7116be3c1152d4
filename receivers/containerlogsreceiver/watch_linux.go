package containerlogsreceiver

import (
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when a directory entry came, went or was renamed in one of the
// directories it watches. It watches directories, not files: how far a file has
// grown is asked of the open file, which is cheaper than an event per write.
type watcher struct {
	inotify *os.File
	fd      int
	changed chan struct{} // holds one; the events themselves are not kept
	ignored string        // names that begin so are of no interest
	gap     atomic.Int64  // ns, the least time between two signals
	stop    chan struct{}
	ended   sync.WaitGroup
}

const (
	watchEvents = unix.IN_CREATE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_DELETE |
		unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR
)

// watchable are the file systems whose every change the kernel tells. On others
// (network file systems, FUSE, overlays) somebody else may change them.
var watchable = map[int64]bool{
	unix.EXT4_SUPER_MAGIC: true, unix.XFS_SUPER_MAGIC: true, unix.BTRFS_SUPER_MAGIC: true, unix.F2FS_SUPER_MAGIC: true,
	unix.TMPFS_MAGIC: true, unix.RAMFS_MAGIC: true, 0x2fc12fc1: true /* ZFS */, 0xca451a4e: true, /* bcachefs */
}

// errNotWatchable says that a directory must be polled.
var errNotWatchable = errors.New("the file system does not tell of every change")

// newWatcher makes a watcher that is silent about names that begin with ignored.
func newWatcher(ignored string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watcher{fd: fd, inotify: os.NewFile(uintptr(fd), "inotify"), changed: make(chan struct{}, 1), ignored: ignored, stop: make(chan struct{})}
	w.gap.Store(int64(watchGap))
	w.ended.Go(w.read)
	return w, nil
}

// watch makes sure that a directory is watched. What is watched already may be
// named again, and should be: its path may have come to lead elsewhere.
func (w *watcher) watch(directory string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(directory, &fs); err != nil {
		return os.NewSyscallError("statfs", err)
	}
	if !watchable[int64(fs.Type)&0xffffffff] {
		return errNotWatchable
	}
	_, err := unix.InotifyAddWatch(w.fd, directory, watchEvents)
	return os.NewSyscallError("inotify_add_watch", err)
}

func (w *watcher) read() {
	buffer := make([]byte, 16<<10)
	for {
		n, err := w.inotify.Read(buffer)
		if err != nil {
			return
		}
		if !relevant(buffer[:n], w.ignored) {
			continue
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
		select {
		case <-time.After(time.Duration(w.gap.Load())):
		case <-w.stop:
			return
		}
	}
}

// relevant says that events tell of more than the end of a watch and of names
// that are of no interest. An overflow of the kernel's queue is relevant:
// something was missed.
func relevant(events []byte, ignored string) bool {
	for len(events) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(events[4:])
		next := min(unix.SizeofInotifyEvent+int(binary.NativeEndian.Uint32(events[12:])), len(events))
		if mask&unix.IN_IGNORED == 0 && !hasPrefix(events[unix.SizeofInotifyEvent:next], ignored) {
			return true
		}
		events = events[next:]
	}
	return false
}

// slowDown makes signals come as seldom as what they cause asks for.
func (w *watcher) slowDown(gap time.Duration) { w.gap.Store(int64(max(gap, watchGap))) }

func (w *watcher) close() {
	close(w.stop)
	_ = w.inotify.Close()
	w.ended.Wait()
}
