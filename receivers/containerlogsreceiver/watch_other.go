//go:build unix && !linux

package containerlogsreceiver

import (
	"errors"
	"time"
)

// watcher is not there on this system: directories are polled.
type watcher struct{ changed chan struct{} }

func newWatcher(string) (*watcher, error) { return nil, errors.ErrUnsupported }

func (*watcher) watch(string) error { return errors.ErrUnsupported }

func (*watcher) slowDown(time.Duration) {}

func (*watcher) close() {}
