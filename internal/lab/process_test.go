package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func shell(t *testing.T, script string, ready func(context.Context) error) *Process {
	t.Helper()
	p := NewProcess(Spec{
		Name: "script", Binary: "/bin/sh", Args: []string{"-c", script}, Env: []string{"GREETING=hello"},
		LogFile: filepath.Join(t.TempDir(), "logs", "script.log"), Ready: ready,
		ReadyTimeout: 5 * time.Second, StopTimeout: time.Second,
	})
	t.Cleanup(func() { require.NoError(t, p.Kill()) })
	return p
}

// logged is ready when the process has written the text.
func logged(p **Process, text string) func(context.Context) error {
	return func(context.Context) error {
		if strings.Contains((*p).LogTail(1<<20), text) {
			return nil
		}
		return errors.New("has not written " + text)
	}
}

func TestProcessStopsOnSIGTERMAndStartsAgain(t *testing.T) {
	t.Setenv("LONGHAUL_CLUSTER", "of the caller")
	var p *Process
	p = shell(t, `trap 'echo bye; exit 0' TERM; echo "$GREETING [$LONGHAUL_CLUSTER]"; while :; do sleep 0.05; done`, logged(&p, "hello []"))
	for range 2 {
		require.NoError(t, p.Start(t.Context()))
		require.ErrorIs(t, p.Start(t.Context()), ErrRunning)
		require.NotZero(t, p.PID())
		require.NoError(t, p.Stop())
		require.False(t, p.Running())
		require.Equal(t, 0, p.ExitCode())
		require.Equal(t, 1, strings.Count(p.LogTail(1000), "hello"), "the tail is of the last run only")
		require.Contains(t, p.LogTail(1000), "bye")
	}
	require.NoError(t, p.Stop(), "stopping twice is no error")
	require.ErrorIs(t, p.Pause(), ErrNotRunning)
}

func TestProcessThatIgnoresSIGTERMIsKilled(t *testing.T) {
	var p *Process
	p = shell(t, `trap '' TERM; echo up; while :; do sleep 0.05; done`, logged(&p, "up"))
	require.NoError(t, p.Start(t.Context()))
	require.ErrorIs(t, p.Stop(), ErrStopTimeout)
	require.False(t, p.Running())
}

func TestStartShowsWhyAProcessEnded(t *testing.T) {
	p := shell(t, `echo "cannot bind port 7" >&2; exit 3`, func(context.Context) error { return errors.New("refused") })
	err := p.Start(t.Context())
	require.ErrorIs(t, err, ErrExited)
	require.ErrorContains(t, err, "exit status 3")
	require.ErrorContains(t, err, "cannot bind port 7")
	require.Equal(t, 3, p.ExitCode())
}

func TestStartGivesUpOnAProcessThatDoesNotAnswer(t *testing.T) {
	p := shell(t, `sleep 60`, func(context.Context) error { return errors.New("refused") })
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := p.Start(ctx)
	require.ErrorIs(t, err, ErrNotReady)
	require.ErrorContains(t, err, "refused")
	require.False(t, p.Running(), "a process that did not become ready must not stay")
}

func TestStartOfAMissingProgram(t *testing.T) {
	p := NewProcess(Spec{Name: "nothing", Binary: "/no/such/program", LogFile: filepath.Join(t.TempDir(), "log")})
	require.ErrorIs(t, p.Start(t.Context()), os.ErrNotExist)
	require.False(t, p.Running())
	<-p.Exited()
}

func TestPauseStopsExecution(t *testing.T) {
	var p *Process
	p = shell(t, `echo up; while :; do echo tick; sleep 0.02; done`, logged(&p, "tick"))
	require.NoError(t, p.Start(t.Context()))
	require.NoError(t, p.Pause())
	time.Sleep(100 * time.Millisecond)
	size := func() int64 {
		info, err := os.Stat(p.LogFile())
		require.NoError(t, err)
		return info.Size()
	}
	before := size()
	time.Sleep(300 * time.Millisecond)
	require.Equal(t, before, size())
	require.NoError(t, p.Resume())
	require.Eventually(t, func() bool { return size() > before }, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, p.Pause())
	require.NoError(t, p.Kill(), "a paused process can be killed")
}

// TestNoProcessSurvivesTheLab kills this test program's own copy, which has
// started a child, and looks for the child.
func TestNoProcessSurvivesTheLab(t *testing.T) {
	if log := os.Getenv("LAB_TEST_CHILD_LOG"); log != "" {
		p := NewProcess(Spec{Name: "child", Binary: "/bin/sleep", Args: []string{"1000"}, LogFile: log})
		if err := p.Start(context.Background()); err != nil {
			panic(err)
		}
		fmt.Printf("child %d\n", p.PID())
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestNoProcessSurvivesTheLab$")
	cmd.Env = append(os.Environ(), "LAB_TEST_CHILD_LOG="+filepath.Join(t.TempDir(), "log"))
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var pid int
	_, err = fmt.Fscanf(out, "child %d\n", &pid)
	require.NoError(t, err)
	require.NoError(t, syscall.Kill(pid, 0), "the child runs")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool { return !alive(pid) }, 5*time.Second, 10*time.Millisecond)
}

// alive is false for a zombie that nobody has waited for.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}
