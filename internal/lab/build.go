package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	buildNice        = 10
	progressInterval = 5 * time.Second
	lockPollInterval = 500 * time.Millisecond
	// A cold build of Loki leaves about 2 GB in Go's build cache.
	buildNeedsBytes = 3 << 30
)

var (
	// ErrNoGo says that there is no go command.
	ErrNoGo = errors.New("no go command")
	// ErrNoDisk says that the disk is full or too full to begin.
	ErrNoDisk = errors.New("not enough disk space")
	// ErrNoNetwork says that modules could not be downloaded.
	ErrNoNetwork = errors.New("cannot download Go modules")
	// ErrBuild says that the compiler or linker failed.
	ErrBuild = errors.New("build failed")
)

// Stage is where the preparation of a backend stands.
type Stage int

// The stages, in order; a backend found in the cache goes to Ready at once.
const (
	Waiting  Stage = iota + 1 // another process builds the same backend
	Listing                   // downloading modules and counting packages
	Building                  // compiling
	Ready                     // the binary is in place
)

// Event reports the progress of one backend.
type Event struct {
	Backend  string
	Version  string
	Stage    Stage
	Done     int // packages compiled so far; packages found in Go's build cache are not counted
	Total    int // packages the binary is made of
	Elapsed  time.Duration
	FromDisk bool // Ready without having to build
}

// String prints the event as one line for a person.
func (e Event) String() string {
	what := e.Backend + " " + e.Version
	elapsed := e.Elapsed.Round(time.Second)
	switch e.Stage {
	case Waiting:
		return fmt.Sprintf("waiting for another build of %s, %v", what, elapsed)
	case Listing:
		return fmt.Sprintf("preparing to build %s: fetching its modules, %v", what, elapsed)
	case Building:
		return fmt.Sprintf("building %s: %s of about %s packages, %v", what, thousands(e.Done), thousands(e.Total), elapsed)
	case Ready:
		if e.FromDisk {
			return what + " is ready (built earlier)"
		}
		return fmt.Sprintf("%s is ready, built in %v", what, elapsed)
	}
	return what
}

// Builder finds or builds backends. The zero value works inside a checkout.
type Builder struct {
	// Checkout is the root of the longhaul checkout (default: found from the
	// working directory).
	Checkout string
	// Cache holds the binaries (default: CacheDir).
	Cache string
	// Progress is called on every change and every few seconds in between,
	// from one goroutine at a time for each Binary call. May be nil.
	Progress func(Event)
}

// Cached returns the path of the backend's binary if it is there already.
func (b *Builder) Cached(name string) (path string, found bool, err error) {
	backend, cache, err := b.locate(name)
	if err != nil {
		return "", false, err
	}
	path = backend.binary(cache)
	return path, isExecutable(path), nil
}

// Binary returns the path of the backend's binary, building it first if need
// be, which takes minutes. It may be called by several goroutines and processes
// at once.
func (b *Builder) Binary(ctx context.Context, name string) (string, error) {
	backend, cache, err := b.locate(name)
	if err != nil {
		return "", err
	}
	run := build{Backend: backend, cache: cache, began: time.Now(), report: b.Progress}
	if run.report == nil {
		run.report = func(Event) {}
	}
	path := backend.binary(cache)
	if isExecutable(path) {
		run.event(Event{Stage: Ready, FromDisk: true})
		return path, nil
	}
	if err := os.MkdirAll(backend.dir(cache), 0o755); err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	unlock, err := run.lock(ctx)
	if err != nil {
		return "", fmt.Errorf("build %s: %w", name, err)
	}
	defer unlock()
	if isExecutable(path) { // built while we waited for the lock
		run.event(Event{Stage: Ready, FromDisk: true})
		return path, nil
	}
	if err := run.compile(ctx, path); err != nil {
		return "", fmt.Errorf("build %s %s: %w", name, backend.Version, err)
	}
	run.event(Event{Stage: Ready})
	return path, nil
}

func (b *Builder) locate(name string) (Backend, string, error) {
	checkout, cache := b.Checkout, b.Cache
	var err error
	if checkout == "" {
		if checkout, err = FindCheckout("."); err != nil {
			return Backend{}, "", err
		}
	}
	if cache == "" {
		if cache, err = CacheDir(); err != nil {
			return Backend{}, "", err
		}
	}
	backend, err := FindBackend(checkout, name)
	return backend, cache, err
}

// build is one attempt to make one backend's binary.
type build struct {
	Backend
	cache  string
	began  time.Time
	report func(Event)
}

func (r *build) event(e Event) {
	e.Backend, e.Version, e.Elapsed = r.Name, r.Version, time.Since(r.began)
	r.report(e)
}

// lock takes the backend's lock file. The file stays: removing it would let a
// third builder lock a new file of the same name.
func (r *build) lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(r.dir(r.cache)+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for first := true; ; first = false {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		if first {
			r.event(Event{Stage: Waiting})
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, ctx.Err()
		case <-time.After(lockPollInterval):
		}
	}
}

func (r *build) compile(ctx context.Context, path string) error {
	goCommand, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("%w in PATH: install Go %s or newer (https://go.dev/dl)", ErrNoGo, strings.TrimPrefix(runtime.Version(), "go"))
	}
	if free, err := freeBytes(r.cache); err == nil && free < buildNeedsBytes {
		return fmt.Errorf("%w: %d MB free at %s, a build needs about %d MB (built backends and Go's build cache)", ErrNoDisk, free>>20, r.cache, buildNeedsBytes>>20)
	}
	args := append([]string{}, r.flags...)
	if r.tags != "" {
		args = append(args, "-tags", r.tags)
	}

	r.event(Event{Stage: Listing})
	list := append(append([]string{"list", "-deps"}, args...), r.Package)
	var packages bytes.Buffer
	if err := r.goRun(ctx, goCommand, list, &packages, nil); err != nil {
		return err
	}
	total := bytes.Count(packages.Bytes(), []byte("\n"))

	// Same directory as the final name: the rename must not cross file systems.
	tmp := filepath.Join(r.dir(r.cache), fmt.Sprintf(".%s.%d", r.Name, os.Getpid()))
	defer os.Remove(tmp)
	var done atomic.Int64
	stopTicking := r.tick(&done, total)
	compile := append(append([]string{"build", "-v", "-trimpath", "-ldflags", "-s -w", "-o", tmp}, args...), r.Package)
	err = r.goRun(ctx, goCommand, compile, io.Discard, func(line string) {
		if !strings.Contains(line, " ") { // -v prints bare package paths; messages have spaces
			done.Add(1)
		}
	})
	stopTicking()
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("put the binary into place: %w", err)
	}
	return nil
}

// tick reports Building every few seconds until the returned function is called.
func (r *build) tick(done *atomic.Int64, total int) (stop func()) {
	quit, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		t := time.NewTicker(progressInterval)
		defer t.Stop()
		for {
			r.event(Event{Stage: Building, Done: int(done.Load()), Total: total})
			select {
			case <-quit:
				return
			case <-t.C:
			}
		}
	}()
	return func() { close(quit); <-gone }
}

// goRun runs the go command in the backend's module at low priority. Every line
// of standard error goes to onLine; its tail ends up in the error.
func (r *build) goRun(ctx context.Context, goCommand string, args []string, stdout io.Writer, onLine func(string)) error {
	cmd := exec.Command(goCommand, args...)
	cmd.Dir = r.Module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	// A build must not outlive a lab that is killed; the kernel's death signal
	// follows the thread that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd.SysProcAttr = childAttributes()
	cmd.Stdout = stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = syscall.Setpriority(syscall.PRIO_PGRP, cmd.Process.Pid, buildNice)
	// The group, not the process: go's compilers would run on.
	stopWatching := context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) })
	var tail []string
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if onLine != nil {
			onLine(lines.Text())
		}
		if tail = append(tail, lines.Text()); len(tail) > 15 {
			tail = tail[1:]
		}
	}
	err = cmd.Wait()
	stopWatching()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return explain(err, strings.Join(tail, "\n"))
	}
	return nil
}

// explain names the two causes that are not the source's fault.
func explain(err error, output string) error {
	for _, sign := range []string{"no space left on device", "disk quota exceeded"} {
		if strings.Contains(output, sign) {
			return fmt.Errorf("%w: the disk ran full; free some space (Go's build cache: go env GOCACHE) and try again:\n%s", ErrNoDisk, output)
		}
	}
	for _, sign := range []string{"dial tcp", "no such host", "i/o timeout", "connection refused", "network is unreachable", "module lookup disabled", "proxyconnect", "TLS handshake"} {
		if strings.Contains(output, sign) {
			return fmt.Errorf("%w: check the network and GOPROXY, then try again:\n%s", ErrNoNetwork, output)
		}
	}
	return fmt.Errorf("%w: %v:\n%s", ErrBuild, err, output)
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// freeBytes looks at the nearest existing parent of dir.
func freeBytes(dir string) (uint64, error) {
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			return st.Bavail * uint64(st.Bsize), nil
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, err
		}
		dir = filepath.Dir(dir)
	}
}

func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
