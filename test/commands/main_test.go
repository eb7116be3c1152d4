package commands

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// programs are built once, with the flags of the environment (the Makefile's,
// under make), and put first in PATH.
var programs = map[string]string{
	"longhaul-collector": "../../collector",
	"longhaul-relay":     "../../relay",
	"longhaul":           "../../cmd/longhaul",
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "longhaul-commands-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for name, source := range programs {
		build := exec.Command("go", "build", "-ldflags", "-s -w -X github.com/longhaul/longhaul/internal/version.version=v0.0.0-test",
			"-o", filepath.Join(dir, name), source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build %s: %v\n%s", name, err, out)
			return 1
		}
	}
	os.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	return m.Run()
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			for _, entry := range os.Environ() {
				name, _, _ := strings.Cut(entry, "=")
				if strings.HasPrefix(name, "LONGHAUL_") {
					env.Setenv(name, "")
				}
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"oneline": oneLine},
	})
}

// oneLine checks that the last command said one line on standard error, by
// name, and nothing on standard output: no usage, no stack.
func oneLine(ts *testscript.TestScript, negated bool, args []string) {
	if negated || len(args) != 1 {
		ts.Fatalf("usage: oneline PROGRAM")
	}
	stderr := ts.ReadFile("stderr")
	if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, args[0]+": ") {
		ts.Fatalf("want one line that begins with %q, got:\n%s", args[0]+": ", stderr)
	}
	if stdout := ts.ReadFile("stdout"); stdout != "" {
		ts.Fatalf("want nothing on standard output, got:\n%s", stdout)
	}
}
