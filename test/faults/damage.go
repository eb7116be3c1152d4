package main

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// segmentExt ends the names of the files that hold frames.
const segmentExt = ".seg"

// maxFlips is how many bytes one damage changes at most.
const maxFlips = 8

// damage flips bits in a random file of a spool that nobody has open, or cuts
// it short, and says what it did. Every other time it is a file with frames.
func damage(dir string, random *rand.Rand) (string, error) {
	files, err := spoolFiles(dir)
	if err != nil {
		return "", fmt.Errorf("damage %s: %w", dir, err)
	}
	if len(files) == 0 {
		return "nothing to damage", nil
	}
	if segments := slices.DeleteFunc(slices.Clone(files), func(f string) bool { return filepath.Ext(f) != segmentExt }); len(segments) > 0 && random.IntN(2) == 0 {
		files = segments
	}
	path := files[random.IntN(len(files))]
	name := strings.TrimPrefix(path, dir+string(filepath.Separator))
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("damage %s: %w", name, err)
	}
	if random.IntN(3) == 0 {
		size := random.IntN(len(b))
		if err := os.Truncate(path, int64(size)); err != nil {
			return "", fmt.Errorf("damage %s: %w", name, err)
		}
		return fmt.Sprintf("%s cut from %d to %d bytes", name, len(b), size), nil
	}
	var offsets []int
	for range 1 + random.IntN(maxFlips) {
		at := random.IntN(len(b))
		b[at] ^= 1 << random.IntN(8)
		offsets = append(offsets, at)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return "", fmt.Errorf("damage %s: %w", name, err)
	}
	return fmt.Sprintf("%s of %d bytes: a bit flipped at %d", name, len(b), offsets), nil
}

// spoolFiles lists the files of a spool that hold anything, without what was set
// aside as damaged before.
func spoolFiles(dir string) (files []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() && entry.Name() == "quarantine" {
			return filepath.SkipDir
		}
		if info, err := entry.Info(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}
