// Command longhaul-spool-owner gives a spool directory to the user the collector
// runs as. The kubelet makes a missing hostPath directory as root, and the
// collector's image has no shell and no chown, so this is the one thing an init
// container has to do:
//
//	longhaul-spool-owner DIRECTORY UID:GID
//
// It closes the directory to all but its owner (0700), then gives it and what is
// below it to UID:GID. Files below it are touched only when the directory itself
// has another owner, so a start is quick however full the spool. It needs the
// capabilities CHOWN and DAC_READ_SEARCH, follows no symbolic link, and never
// leaves the directory.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "longhaul-spool-owner:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: longhaul-spool-owner DIRECTORY UID:GID")
	}
	uid, gid, err := parseOwner(args[1])
	if err != nil {
		return err
	}
	return give(args[0], uid, gid)
}

// parseOwner reads "10001:10001".
func parseOwner(text string) (uid, gid int, err error) {
	user, group, found := strings.Cut(text, ":")
	if !found {
		return 0, 0, fmt.Errorf("owner %q: want UID:GID, both numbers", text)
	}
	for _, part := range []struct {
		text string
		id   *int
	}{{user, &uid}, {group, &gid}} {
		n, err := strconv.ParseUint(part.text, 10, 31)
		if err != nil {
			return 0, 0, fmt.Errorf("owner %q: want UID:GID, both numbers", text)
		}
		*part.id = int(n)
	}
	return uid, gid, nil
}

// give makes uid:gid the owner of dir and of everything below it.
func give(dir string, uid, gid int) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("spool directory: %w", err)
	}
	if !info.IsDir() {
		return fmt.Errorf("spool directory %s is not a directory", dir)
	}
	// Only while it is ours: what was given away cannot be changed without one
	// more capability, and was closed when it was given.
	if info.Mode().Perm() != 0o700 && belongsTo(info, os.Geteuid()) {
		if err := os.Chmod(dir, 0o700); err != nil {
			return fmt.Errorf("close the spool directory to others: %w", err)
		}
	}
	if belongsTo(info, uid) {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the spool directory: %w", err)
	}
	defer root.Close()
	// The directory itself comes last, so that an interrupted run starts over.
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, uid, gid)
	})
	if err != nil {
		return fmt.Errorf("give the spool's files to %d:%d: %w", uid, gid, err)
	}
	if err := root.Lchown(".", uid, gid); err != nil {
		return fmt.Errorf("give the spool directory to %d:%d: %w", uid, gid, err)
	}
	return nil
}

func belongsTo(info fs.FileInfo, uid int) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == uid
}
