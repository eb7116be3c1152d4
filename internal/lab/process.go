package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	defaultReadyTimeout = 60 * time.Second
	defaultStopTimeout  = 30 * time.Second
	readyPollInterval   = 50 * time.Millisecond
	errorTailBytes      = 3 << 10
)

var (
	// ErrRunning says that Start was called on a process that runs.
	ErrRunning = errors.New("already running")
	// ErrNotRunning says that the process is not running.
	ErrNotRunning = errors.New("not running")
	// ErrExited says that the process ended before it was ready.
	ErrExited = errors.New("exited before it was ready")
	// ErrNotReady says that the process runs but did not answer its readiness check in time.
	ErrNotReady = errors.New("did not become ready")
	// ErrStopTimeout says that the process ignored SIGTERM and was killed.
	ErrStopTimeout = errors.New("did not stop on SIGTERM and was killed")
)

// Spec describes a child process.
type Spec struct {
	// Name is used in errors and log lines.
	Name string
	// Binary is the program's path, Args its arguments without the name.
	Binary string
	Args   []string
	// Env is added to the lab's own environment, from which every LONGHAUL_
	// variable is removed first.
	Env []string
	// LogFile gets standard output and standard error; it is appended to.
	LogFile string
	// Ready returns nil when the process answers. Nil: ready once started.
	Ready func(context.Context) error
	// ReadyTimeout bounds Start (default 60 s), StopTimeout Stop (default 30 s).
	ReadyTimeout, StopTimeout time.Duration
}

// Process is a child process that can be started again after it ended. Its
// methods may be called from several goroutines.
type Process struct {
	spec Spec

	mu      sync.Mutex
	cmd     *exec.Cmd     // nil before the first start
	done    chan struct{} // closed when the current run ended; nil before the first start
	waitErr error         // of the last run, valid once done is closed
	logFrom int64         // where the current run's output begins in the log file
}

// NewProcess returns a process that is not started yet.
func NewProcess(spec Spec) *Process {
	if spec.ReadyTimeout == 0 {
		spec.ReadyTimeout = defaultReadyTimeout
	}
	if spec.StopTimeout == 0 {
		spec.StopTimeout = defaultStopTimeout
	}
	return &Process{spec: spec}
}

// Name returns the name given in the Spec.
func (p *Process) Name() string { return p.spec.Name }

// LogFile returns the path of the process's log.
func (p *Process) LogFile() string { return p.spec.LogFile }

// Start starts the process and waits until it is ready. When it does not get
// there, it is killed and the error shows the tail of its log.
func (p *Process) Start(ctx context.Context) error {
	if err := p.Launch(); err != nil {
		return err
	}
	if err := p.WaitReady(ctx); err != nil {
		_ = p.Kill()
		return err
	}
	return nil
}

// Launch starts the process without waiting until it is ready.
func (p *Process) Launch() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("start %s: %w", p.spec.Name, ErrRunning)
	}
	if err := os.MkdirAll(filepath.Dir(p.spec.LogFile), 0o755); err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	log, err := os.OpenFile(p.spec.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	defer log.Close() // the child has its own descriptor
	if p.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}

	cmd := exec.Command(p.spec.Binary, p.spec.Args...)
	cmd.Env = append(ownEnvironment(), p.spec.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttributes()
	p.cmd, p.done = cmd, make(chan struct{})

	started := make(chan error)
	go p.run(cmd, started, p.done)
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	return nil
}

// run starts the command and waits for it on one locked thread: the kernel
// sends the death signal when the thread that started the child ends, not when
// the process does.
func (p *Process) run(cmd *exec.Cmd, started chan<- error, done chan<- struct{}) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		p.waitErr = err
		close(done)
		started <- err
		return
	}
	started <- nil
	err := cmd.Wait()
	p.mu.Lock()
	p.waitErr = err
	p.mu.Unlock()
	close(done)
}

// WaitReady waits until the started process answers its readiness check.
func (p *Process) WaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.spec.ReadyTimeout)
	defer cancel()
	exited := p.Exited()
	var last error
	for {
		if p.spec.Ready == nil {
			return nil
		}
		if last = p.spec.Ready(ctx); last == nil {
			return nil
		}
		select {
		case <-exited:
			return fmt.Errorf("%s %w (%v); the end of %s:\n%s", p.spec.Name, ErrExited, p.exitError(), p.spec.LogFile, p.LogTail(errorTailBytes))
		case <-ctx.Done():
			return fmt.Errorf("%s %w: %v; the end of %s:\n%s", p.spec.Name, ErrNotReady, last, p.spec.LogFile, p.LogTail(errorTailBytes))
		case <-time.After(readyPollInterval):
		}
	}
}

// Stop sends SIGTERM and waits until the process is gone. Stopping a process
// that does not run is no error.
func (p *Process) Stop() error {
	p.mu.Lock()
	if !p.running() {
		p.mu.Unlock()
		return nil
	}
	done := p.done
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGCONT)
	p.mu.Unlock()

	timer := time.NewTimer(p.spec.StopTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-timer.C:
	}
	_ = p.Kill()
	return fmt.Errorf("%s %w after %v; the end of %s:\n%s", p.spec.Name, ErrStopTimeout, p.spec.StopTimeout, p.spec.LogFile, p.LogTail(errorTailBytes))
}

// Kill sends SIGKILL and waits until the process is gone. Killing a process
// that does not run is no error.
func (p *Process) Kill() error {
	p.mu.Lock()
	if !p.running() {
		p.mu.Unlock()
		return nil
	}
	done := p.done
	p.signal(syscall.SIGKILL)
	p.mu.Unlock()
	<-done
	return nil
}

// Pause stops the process's execution without ending it; Resume continues it.
func (p *Process) Pause() error { return p.signalRunning(syscall.SIGSTOP) }

// Resume continues a paused process.
func (p *Process) Resume() error { return p.signalRunning(syscall.SIGCONT) }

func (p *Process) signalRunning(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s: %w", p.spec.Name, ErrNotRunning)
	}
	p.signal(s)
	return nil
}

// signal reaches the whole process group; the caller holds mu and knows that
// the process has not been waited for, so the group id cannot be another's.
func (p *Process) signal(s syscall.Signal) { _ = syscall.Kill(-p.cmd.Process.Pid, s) }

// Running says whether the process has been started and has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running()
}

func (p *Process) running() bool {
	if p.done == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// PID returns the process id of the current run, or 0.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return 0
	}
	return p.cmd.Process.Pid
}

// Exited returns a channel that is closed when the current run ends, however it
// ends. Before the first start it returns a closed channel.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		closed := make(chan struct{})
		close(closed)
		return closed
	}
	return p.done
}

// ExitCode returns the exit status of the last run, -1 when it was ended by a
// signal or has not ended.
func (p *Process) ExitCode() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil || p.cmd.ProcessState == nil || p.running() {
		return -1
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *Process) exitError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waitErr == nil {
		return errors.New("exit status 0")
	}
	return p.waitErr
}

// LogTail returns at most the last max bytes of what the current run has
// written, whole lines only.
func (p *Process) LogTail(max int64) string {
	p.mu.Lock()
	from := p.logFrom
	p.mu.Unlock()
	f, err := os.Open(p.spec.LogFile)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	cut := false
	if info, err := f.Stat(); err == nil && info.Size()-max > from {
		from, cut = info.Size()-max, true
	}
	if _, err := f.Seek(from, io.SeekStart); err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(io.LimitReader(f, max))
	if err != nil {
		return err.Error()
	}
	text := string(b)
	if cut {
		if _, after, found := strings.Cut(text, "\n"); found {
			text = after
		}
	}
	return strings.TrimRight(text, "\n")
}

// ownEnvironment keeps the settings of the lab's caller out of its children.
func ownEnvironment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "LONGHAUL_") {
			env = append(env, kv)
		}
	}
	return env
}
