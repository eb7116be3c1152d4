package containers

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// maxLogBytes and maxLogFiles are the kubelet's containerLogMaxSize (10 MiB
	// by default; less here, to rotate often) and containerLogMaxFiles (5 by
	// default; more here, so that no log is removed that a collector on a slow
	// machine could not have read).
	maxLogBytes = 512 << 10
	maxLogFiles = 10
)

// rotate does what the kubelet's log manager does: compress what was rotated
// before, remove what is too much, rename the present log and ask the runtime to
// open a new one.
func (c *container) rotate() error {
	if err := c.compress(); err != nil {
		return err
	}
	rotated, err := filepath.Glob(c.logPath() + ".*")
	if err != nil {
		return err
	}
	// Names hold the time, so the oldest is the first.
	for len(rotated) > maxLogFiles-2 {
		if err := os.Remove(rotated[0]); err != nil {
			return err
		}
		rotated = rotated[1:]
	}
	// The kubelet's names have seconds; here two rotations may be within one.
	c.rotation++
	name := fmt.Sprintf("%s.%s-%03d", c.logPath(), time.Now().Format("20060102-150405"), c.rotation)
	if err := os.Rename(c.logPath(), name); err != nil {
		return err
	}
	ctx := c.pod.node.t.Context()
	if _, err := c.pod.node.runtime.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{ContainerId: c.id}); err != nil {
		// As the kubelet does: the log is the present one again.
		if failed := os.Rename(name, c.logPath()); failed != nil || !c.ended() {
			return errors.Join(fmt.Errorf("reopen the log of %s: %w", c.lines, err), failed)
		}
		c.rotation--
	}
	return nil
}

// compress compresses every rotated log that is not yet.
func (c *container) compress() error {
	rotated, err := filepath.Glob(c.logPath() + ".*")
	if err != nil {
		return err
	}
	for _, path := range rotated {
		if strings.HasSuffix(path, ".gz") {
			continue
		}
		if err := compress(path); err != nil {
			return fmt.Errorf("compress %s: %w", path, err)
		}
	}
	return nil
}

func compress(path string) (err error) {
	from, err := os.Open(path)
	if err != nil {
		return err
	}
	defer from.Close()
	tmp := path + ".tmp"
	to, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp)
		}
	}()
	z := gzip.NewWriter(to)
	if _, err := io.Copy(z, from); err != nil {
		return errors.Join(err, to.Close())
	}
	if err := errors.Join(z.Close(), to.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}

// rotateIfLarge rotates a log that has grown over its limit.
func (c *container) rotateIfLarge() error {
	info, err := os.Stat(c.logPath())
	if err != nil || info.Size() < maxLogBytes || c.ended() {
		return err
	}
	return c.rotate()
}
