package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// maxStateBytes bounds what SaveState is for.
const maxStateBytes = 1 << 20

// SaveState keeps a small state of whoever uses the spool, under a name of
// letters, digits, '-', '_' and '.'. It replaces the former whole, without an
// fsync: after a power cut it may be old or missing.
func (s *Spool) SaveState(name string, b []byte) error {
	path, err := s.statePath(name)
	if err != nil {
		return err
	}
	if len(b) > maxStateBytes {
		return fmt.Errorf("state %s: %d bytes are more than %d", name, len(b), maxStateBytes)
	}
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	fsys := s.opts.fs
	err = writeFileAtomic(fsys, path, b, false)
	if errors.Is(err, fs.ErrNotExist) {
		if err = fsys.MkdirAll(filepath.Dir(path)); err == nil {
			err = writeFileAtomic(fsys, path, b, false)
		}
	}
	if err != nil {
		return fmt.Errorf("save state %s: %w", name, err)
	}
	return nil
}

// LoadState returns what SaveState last kept; fs.ErrNotExist if nothing.
func (s *Spool) LoadState(name string) ([]byte, error) {
	path, err := s.statePath(name)
	if err != nil {
		return nil, err
	}
	s.stateMu.Lock()
	defer s.stateMu.Unlock()
	b, err := readFile(s.opts.fs, path, maxStateBytes)
	if err != nil {
		return nil, fmt.Errorf("load state %s: %w", name, err)
	}
	return b, nil
}

func (s *Spool) statePath(name string) (string, error) {
	allowed := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
	}
	if name == "" || name[0] == '.' || strings.IndexFunc(name, func(r rune) bool { return !allowed(r) }) >= 0 || strings.HasSuffix(name, ".tmp") {
		return "", fmt.Errorf("state name %q: must be letters, digits, '-', '_' and '.'", name)
	}
	return filepath.Join(s.opts.Dir, stateName, name), nil
}
