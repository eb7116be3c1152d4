package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseOwner(t *testing.T) {
	uid, gid, err := parseOwner("10001:20002")
	if err != nil || uid != 10001 || gid != 20002 {
		t.Fatalf("got %d:%d, %v", uid, gid, err)
	}
	for _, text := range []string{"", "10001", "10001:", ":1", "a:b", "-1:0", "1:2:3", "4294967295:0"} {
		if _, _, err := parseOwner(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestRunNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "usage"},
		{[]string{dir}, "usage"},
		{[]string{dir, "me"}, "UID:GID"},
		{[]string{filepath.Join(dir, "none"), "1:1"}, "no such file"},
		{[]string{file, "1:1"}, "not a directory"},
		{[]string{link, "1:1"}, "not a directory"},
	} {
		if err := run(c.args); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("run(%q) = %v, want an error with %q", c.args, err, c.want)
		}
	}
}

// The owner of what we made is ourselves, so this part needs no root.
func TestGiveClosesTheDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := give(dir, os.Getuid(), os.Getgid()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
}

func TestGiveReachesEverythingBelowAndNothingElse(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing an owner needs root")
	}
	outside := filepath.Join(t.TempDir(), "outside")
	dir := t.TempDir()
	sub := filepath.Join(dir, "logs-1")
	files := []string{outside, filepath.Join(dir, "spool.json"), filepath.Join(sub, "1.seg")}
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}

	// There and back: from root to the collector's user, and to root again.
	for _, id := range []int{10001, 0} {
		if err := give(dir, id, id); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{dir, sub, files[1], files[2], link} {
			if got := ownerOf(t, path); got != id {
				t.Errorf("%s belongs to %d, want %d", path, got, id)
			}
		}
		if got := ownerOf(t, outside); got != 0 {
			t.Errorf("the file a link points to was given to %d", got)
		}
	}

	// With the right owner already there, nothing below is looked at.
	if err := os.Lchown(files[1], 4242, 4242); err != nil {
		t.Fatal(err)
	}
	if err := give(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	if got := ownerOf(t, files[1]); got != 4242 {
		t.Errorf("a second run walked the spool again: owner %d", got)
	}
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sys().(*syscall.Stat_t).Uid)
}
