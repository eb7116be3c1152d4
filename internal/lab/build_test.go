package lab

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// checkoutWith makes a checkout whose prometheus backend is a small program.
func checkoutWith(t *testing.T, program string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range map[string]string{
		"go.mod":                                             "module " + modulePath + "\n",
		"test/backends/prometheus/go.mod":                    "module example.org/backend\n\ngo 1.26\n\ntool example.org/server/cmd/server\n\nrequire example.org/server v1.2.3\n\nreplace example.org/server => ./server\n",
		"test/backends/prometheus/server/go.mod":             "module example.org/server\n\ngo 1.26\n",
		"test/backends/prometheus/server/cmd/server/main.go": program,
	} {
		file := filepath.Join(root, path)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	}
	return root
}

const helloProgram = "package main\n\nfunc main() { println(\"hello\") }\n"

func TestBuildersOfOneBackendBuildItOnce(t *testing.T) {
	checkout, cache := checkoutWith(t, helloProgram), t.TempDir()
	var mu sync.Mutex
	var built, found int
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			b := Builder{Checkout: checkout, Cache: cache, Progress: func(e Event) {
				mu.Lock()
				defer mu.Unlock()
				if e.Stage == Ready && e.FromDisk {
					found++
				} else if e.Stage == Ready {
					built++
				}
			}}
			path, err := b.Binary(t.Context(), "prometheus")
			require.NoError(t, err)
			require.Equal(t, filepath.Join(cache, "prometheus-v1.2.3", "prometheus"), path)
			out, err := exec.Command(path).CombinedOutput()
			require.NoError(t, err)
			require.Equal(t, "hello\n", string(out))
		})
	}
	wg.Wait()
	require.Equal(t, 1, built)
	require.Equal(t, 3, found)
	left, err := os.ReadDir(filepath.Join(cache, "prometheus-v1.2.3"))
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing but the binary stays")
}

func TestBuildReportsItsStages(t *testing.T) {
	b := Builder{Checkout: checkoutWith(t, helloProgram), Cache: t.TempDir()}
	_, found, err := b.Cached("prometheus")
	require.NoError(t, err)
	require.False(t, found)
	var stages []Stage
	b.Progress = func(e Event) {
		stages = append(stages, e.Stage)
		if e.Stage == Building {
			require.Greater(t, e.Total, 10, "the runtime's packages count")
		}
	}
	_, err = b.Binary(t.Context(), "prometheus")
	require.NoError(t, err)
	require.Equal(t, []Stage{Listing, Building, Ready}, stages)
	_, found, err = b.Cached("prometheus")
	require.NoError(t, err)
	require.True(t, found)
}

func TestBuildErrorsSayWhatToDo(t *testing.T) {
	build := func(b Builder) error {
		_, err := b.Binary(t.Context(), "prometheus")
		return err
	}
	t.Run("source", func(t *testing.T) {
		err := build(Builder{Checkout: checkoutWith(t, "package main\n\nfunc main() { undefined() }\n"), Cache: t.TempDir()})
		require.ErrorIs(t, err, ErrBuild)
		require.ErrorContains(t, err, "undefined: undefined")
	})
	t.Run("no Go", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		require.ErrorIs(t, build(Builder{Checkout: checkoutWith(t, helloProgram), Cache: t.TempDir()}), ErrNoGo)
	})
	t.Run("no network", func(t *testing.T) {
		checkout := checkoutWith(t, helloProgram)
		require.NoError(t, os.WriteFile(filepath.Join(checkout, "test/backends/prometheus/go.mod"),
			[]byte("module example.org/backend\n\ngo 1.26\n\ntool example.org/server/cmd/server\n\nrequire example.org/server v1.2.3\n"), 0o644))
		const sum = "h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
		require.NoError(t, os.WriteFile(filepath.Join(checkout, "test/backends/prometheus/go.sum"),
			[]byte("example.org/server v1.2.3 "+sum+"example.org/server v1.2.3/go.mod "+sum), 0o644))
		t.Setenv("GOPROXY", "http://127.0.0.1:1")
		require.ErrorIs(t, build(Builder{Checkout: checkout, Cache: t.TempDir()}), ErrNoNetwork)
	})
	t.Run("disk full", func(t *testing.T) {
		require.ErrorIs(t, explain(errors.New("exit status 1"), "link: mapping output file failed: no space left on device"), ErrNoDisk)
	})
	t.Run("outside a checkout", func(t *testing.T) {
		t.Chdir(t.TempDir())
		require.ErrorIs(t, build(Builder{Cache: t.TempDir()}), ErrNoCheckout)
	})
	t.Run("unknown", func(t *testing.T) {
		b := Builder{}
		_, err := b.Binary(t.Context(), "mysql")
		require.ErrorIs(t, err, ErrUnknownBackend)
	})
	t.Run("stopped", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b := Builder{Checkout: checkoutWith(t, helloProgram), Cache: t.TempDir(), Progress: func(e Event) {
			if e.Stage == Building {
				cancel()
			}
		}}
		_, err := b.Binary(ctx, "prometheus")
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestBackendVersionsComeFromTheirModules(t *testing.T) {
	checkout, err := FindCheckout(".")
	require.NoError(t, err)
	for _, name := range BackendNames {
		b, err := FindBackend(checkout, name)
		require.NoError(t, err)
		require.Regexp(t, `^v\d+\.\d+\.\d+$`, b.Version)
		require.Contains(t, b.Package, "/cmd/"+name)
	}
}

func TestEventsReadAsSentences(t *testing.T) {
	for want, e := range map[string]Event{
		"building loki v3.7.8: 412 of about 1,900 packages, 3m10s":    {Stage: Building, Done: 412, Total: 1900},
		"loki v3.7.8 is ready, built in 3m10s":                        {Stage: Ready},
		"loki v3.7.8 is ready (built earlier)":                        {Stage: Ready, FromDisk: true},
		"waiting for another build of loki v3.7.8, 3m10s":             {Stage: Waiting},
		"preparing to build loki v3.7.8: fetching its modules, 3m10s": {Stage: Listing},
	} {
		e.Backend, e.Version, e.Elapsed = "loki", "v3.7.8", 190*time.Second
		require.Equal(t, want, e.String())
	}
	require.Equal(t, "1,234,567", thousands(1234567))
	require.Equal(t, "7", thousands(7))
}
