package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
)

const modulePath = "github.com/longhaul/longhaul"

var (
	// ErrUnknownBackend says that there is no module test/backends/<name>.
	ErrUnknownBackend = errors.New("unknown backend")
	// ErrNoCheckout says that no longhaul checkout was found.
	ErrNoCheckout = errors.New("not inside a longhaul checkout")
)

// Backend is a server that longhaul delivers to, as it is built from source.
type Backend struct {
	Name    string // loki, prometheus or jaeger
	Version string // as named in its go.mod: v3.7.8
	Package string // the command's import path
	Module  string // directory of its module in the checkout
	tags    string
	flags   []string
}

// BackendNames lists the backends, the quickest to build first.
var BackendNames = []string{"prometheus", "jaeger", "loki"}

var buildSettings = map[string]struct {
	tags  string
	flags []string
}{
	"prometheus": {tags: "remove_all_sd,netgo"},
	"jaeger":     {},
	// Loki's own go.mod replaces modules; its module here repeats them, which
	// leaves sums that only -mod=mod may complete.
	"loki": {tags: "netgo,grpcnotrace", flags: []string{"-mod=mod"}},
}

// FindCheckout returns the root of the longhaul checkout that dir is in.
func FindCheckout(dir string) (string, error) {
	start, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := start; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && modfile.ModulePath(b) == modulePath {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%w: no go.mod of %s in %s or above it", ErrNoCheckout, modulePath, start)
		}
	}
}

// FindBackend reads name, version and command of a backend from its go.mod in
// the checkout.
func FindBackend(checkout, name string) (Backend, error) {
	settings, known := buildSettings[name]
	if !known {
		return Backend{}, fmt.Errorf("%w %q: there are %s", ErrUnknownBackend, name, strings.Join(BackendNames, ", "))
	}
	b := Backend{Name: name, Module: filepath.Join(checkout, "test", "backends", name), tags: settings.tags, flags: settings.flags}
	path := filepath.Join(b.Module, "go.mod")
	content, err := os.ReadFile(path)
	if err != nil {
		return Backend{}, fmt.Errorf("read the version of %s: %w", name, err)
	}
	mod, err := modfile.Parse(path, content, nil)
	if err != nil {
		return Backend{}, fmt.Errorf("read the version of %s: %w", name, err)
	}
	if len(mod.Tool) != 1 {
		return Backend{}, fmt.Errorf("%s: want exactly one tool line, found %d", path, len(mod.Tool))
	}
	b.Package = mod.Tool[0].Path
	longest := ""
	for _, r := range mod.Require {
		if strings.HasPrefix(b.Package, r.Mod.Path+"/") && len(r.Mod.Path) > len(longest) {
			longest, b.Version = r.Mod.Path, r.Mod.Version
		}
	}
	if b.Version == "" {
		return Backend{}, fmt.Errorf("%s: no requirement for the tool %s", path, b.Package)
	}
	return b, nil
}

// CacheDir returns the directory that holds the built backends.
func CacheDir() (string, error) {
	if dir := os.Getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "longhaul", "backends"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("find a place for built backends: %w; set HOME or XDG_CACHE_HOME", err)
	}
	return filepath.Join(home, ".cache", "longhaul", "backends"), nil
}

func (b Backend) dir(cache string) string    { return filepath.Join(cache, b.Name+"-"+b.Version) }
func (b Backend) binary(cache string) string { return filepath.Join(b.dir(cache), b.Name) }
