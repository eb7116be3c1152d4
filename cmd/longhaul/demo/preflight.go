package demo

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/longhaul/longhaul/internal/lab"
)

var (
	// ErrPortInUse says that a port the demo needs is taken.
	ErrPortInUse = errors.New("port in use")
	// ErrNotBuilt says that a longhaul program is missing.
	ErrNotBuilt = errors.New("not built")
	// ErrMissingTool says that a program of the system is missing.
	ErrMissingTool = errors.New("missing tool")
	// ErrNoSpace says that there is too little disk space to begin.
	ErrNoSpace = errors.New("not enough disk space")
	// ErrDirInUse says that the run directory has something in it.
	ErrDirInUse = errors.New("run directory is not empty")
)

const (
	// runNeedsBytes covers spools, hub and backends of an hour's demo.
	runNeedsBytes = 1 << 30
	// buildNeedsBytes covers the backends and what Go's build cache keeps of them.
	buildNeedsBytes = 5 << 30
)

// place is what the demo found to work with.
type place struct {
	self, collector, relay string // programs
	checkout               string
	built                  map[string]bool // backends that need no build
}

// preflight finds everything the demo needs before anything is started, and
// reports all that is wrong at once.
func preflight(o *options) (*place, error) {
	var errs []error
	p := &place{built: map[string]bool{}}
	var err error
	if p.self, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	bin := o.Bin
	if bin == "" {
		bin = filepath.Dir(p.self)
	}
	p.collector, p.relay = filepath.Join(bin, "longhaul-collector"), filepath.Join(bin, "longhaul-relay")
	for _, path := range []string{p.collector, p.relay} {
		if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			errs = append(errs, fmt.Errorf("%s is %w: there is no program %s; run `make build`, or point --bin at it", filepath.Base(path), ErrNotBuilt, path))
		}
	}

	if p.checkout, err = lab.FindCheckout("."); err != nil {
		if p.checkout, err = lab.FindCheckout(filepath.Dir(p.self)); err != nil {
			errs = append(errs, fmt.Errorf("the demo builds its backends from the longhaul sources: run it in a checkout: %w", err))
		}
	}
	if err == nil {
		errs = append(errs, p.checkBackends())
	}
	for _, w := range o.ports() {
		errs = append(errs, checkPort(w))
	}
	where := o.Dir
	if where == "" {
		where = os.TempDir()
	}
	hint := "free some, or choose another place with --dir (DEMO_DIR) or TMPDIR"
	errs = append(errs, checkSpace(where, runNeedsBytes, "the run directory", hint))
	if o.Dir != "" {
		if entries, err := os.ReadDir(o.Dir); err == nil && len(entries) > 0 {
			errs = append(errs, fmt.Errorf("%w: %s; remove it or choose another --dir (DEMO_DIR)", ErrDirInUse, o.Dir))
		}
	}
	return p, errors.Join(errs...)
}

// checkBackends asks for Go and disk space where a backend has to be built.
func (p *place) checkBackends() error {
	b := lab.Builder{Checkout: p.checkout}
	missing := 0
	for _, name := range lab.BackendNames {
		_, found, err := b.Cached(name)
		if err != nil {
			return err
		}
		p.built[name] = found
		if !found {
			missing++
		}
	}
	if missing == 0 {
		return nil
	}
	var errs []error
	if _, err := exec.LookPath("go"); err != nil {
		errs = append(errs, fmt.Errorf("%w: go is not in PATH, and %d of the backends have to be built with it; install Go %s or newer (https://go.dev/dl)",
			ErrMissingTool, missing, strings.TrimPrefix(runtime.Version(), "go")))
	}
	cache, err := lab.CacheDir()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	need := int64(buildNeedsBytes) * int64(missing) / int64(len(lab.BackendNames))
	return errors.Join(append(errs, checkSpace(cache, need, "the built backends and Go's build cache", "free some, or choose another place with XDG_CACHE_HOME (and GOCACHE)"))...)
}

// checkSpace looks at the file system of dir or of its nearest existing parent.
func checkSpace(dir string, need int64, what, hint string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			if free := int64(st.Bavail) * int64(st.Bsize); free < need { //nolint:unconvert // types differ by system
				return fmt.Errorf("%w: %d MB are free at %s, and about %d MB are needed for %s; %s", ErrNoSpace, free>>20, dir, need>>20, what, hint)
			}
			return nil
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return fmt.Errorf("look at the disk space of %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

func checkPort(w wantedPort) error {
	if w.port == 0 {
		return nil
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)))
	if err == nil {
		return ln.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port %d for %s: %w; set %s to another port", w.port, w.name, err, w.env)
	}
	return fmt.Errorf("%w: 127.0.0.1:%d, wanted for %s, is held by %s; stop that program, or set %s to another port (0: any free one)",
		ErrPortInUse, w.port, w.name, portHolder("/proc", w.port), w.env)
}
