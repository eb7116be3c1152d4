package demo

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// asLonghaul makes the test program behave as longhaul.
const asLonghaul = "DEMO_TEST_AS_LONGHAUL"

func TestMain(m *testing.M) {
	if os.Getenv(asLonghaul) != "" {
		longhaul()
		return
	}
	testscript.Main(m, map[string]func(){"longhaul": longhaul})
}

func longhaul() {
	root := &cobra.Command{Use: "longhaul", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(NewCommand())
	if err := root.Execute(); err != nil {
		fmt.Fprintf(os.Stderr, "longhaul: %v\n", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	checkout, err := lab.FindCheckout(".")
	require.NoError(t, err)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			e.Defer(func() { _ = ln.Close() })
			e.Setenv("CHECKOUT", checkout)
			longhaul, err := exec.LookPath("longhaul") // testscript puts it into PATH
			if err != nil {
				return err
			}
			e.Setenv("LONGHAUL", longhaul)
			e.Setenv("TAKEN", strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
			// Backends that need no build: the scripts stop before they run.
			for _, name := range lab.BackendNames {
				b, err := lab.FindBackend(checkout, name)
				if err != nil {
					return err
				}
				dir := filepath.Join(e.WorkDir, "cache", "longhaul", "backends", b.Name+"-"+b.Version)
				if err := os.MkdirAll(dir, 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(dir, b.Name), []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
					return err
				}
			}
			e.Setenv("CACHE", filepath.Join(e.WorkDir, "cache"))
			return nil
		},
	})
}
