package containerlogsreceiver

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// lookAnyway is how often everything is looked for although all directories are
// watched and nothing was told.
const lookAnyway = 30 * time.Second

const (
	// watchGap is the least time between two looks that events ask for: they come
	// in swarms.
	watchGap = 20 * time.Millisecond
	// watchShare is how much longer than a look the time between two is at least,
	// so that a busy directory costs at most a fiftieth of a core.
	watchShare = 50
	// maxWatchGap bounds that time: a look may have been slow for once.
	maxWatchGap = time.Second
)

// startWatching begins to watch directories; without that they are polled.
func (r *reader) startWatching() {
	w, err := newWatcher(filepath.Base(r.config.PositionFile))
	if err != nil {
		r.logger.Info("directories of container logs are polled: they cannot be watched", zap.Error(err))
		return
	}
	r.watcher = w
}

// signals tells of changes in watched directories; nil without a watcher.
func (r *reader) signals() <-chan struct{} {
	if r.watcher == nil {
		return nil
	}
	return r.watcher.changed
}

// lookSoon asks for another look.
func (r *reader) lookSoon() {
	if r.watcher == nil {
		return
	}
	select {
	case r.watcher.changed <- struct{}{}:
	default:
	}
}

// watchDirectories watches every directory in which something may come to match
// a pattern: those a pattern's beginnings lead to, from the top, so that nothing
// comes between looking and watching unnoticed. It reports whether all of them
// are watched; if not, they are polled.
func (r *reader) watchDirectories() (all bool) {
	if r.watcher == nil {
		return false
	}
	all = true
	watch := func(directory string) {
		err := r.watcher.watch(directory)
		if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrNotExist) {
			return // a file that a pattern for directories matches, or gone meanwhile
		}
		if err != nil {
			all = false
			if !r.polling[directory] {
				if len(r.polling) > maxTroubled {
					clear(r.polling)
				}
				r.polling[directory] = true
				r.logger.Info("a directory of container logs is polled: it cannot be watched", zap.String("directory", directory), zap.Error(err))
			}
		}
	}
	for _, pattern := range r.config.Include {
		for _, level := range directoryLevels(pattern) {
			found, _ := filepath.Glob(level) // Validate has seen to the pattern
			if len(found) == 0 && !strings.ContainsAny(level, `*?[\`) {
				all = false // not there yet
			}
			for _, directory := range found {
				watch(directory)
			}
		}
	}
	for _, f := range r.files {
		for _, directory := range linkedDirectories(f.path) {
			watch(directory)
		}
	}
	return all
}

// directoryLevels lists the patterns of the directories above a pattern's files,
// from the first that a wildcard stands in: /a, /a/* and /a/*/* for /a/*/*/*.log.
func directoryLevels(pattern string) (levels []string) {
	for directory := filepath.Dir(pattern); ; directory = filepath.Dir(directory) {
		levels = append([]string{directory}, levels...)
		if !strings.ContainsAny(directory, `*?[\`) {
			return levels
		}
	}
}

// linkedDirectories lists the directories a symbolic link leads through.
func linkedDirectories(path string) (directories []string) {
	for range 8 {
		target, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
		directories = append(directories, filepath.Dir(path))
	}
	return directories
}

// lookAgain is done with every tick. It also runs while a batch waits for the
// pipeline, so that files which rotate meanwhile are held open.
func (r *reader) lookAgain() {
	now := time.Now()
	if r.watched && now.Sub(r.lastLook) < lookAnyway {
		r.observeAll(now)
		return
	}
	r.discover(false)
}

// observeAll looks at the size of the open files.
func (r *reader) observeAll(now time.Time) {
	r.looked = true
	r.telemetry.files.Record(context.Background(), int64(len(r.files)))
	for _, f := range r.files {
		if f.failed {
			f.failed, f.scanned = false, f.offset
		}
		if f.givenUp {
			continue
		}
		if info, err := f.handle.Stat(); err != nil {
			r.trouble(f.path, err)
		} else {
			f.observe(info, now)
		}
	}
	r.boundDeleted(r.timing.maxDeleted)
}
