package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
)

// BuildPeer returns the binary of a peer that a benchmark compares longhaul with,
// from the cache or built into it. The peer is the Go module in a directory; its
// version is that of the required module whose path ends in versionOf. The
// binary's directory in the cache is named by that version and a hash of all the
// peer is built from. say tells whoever waits what is going on.
func BuildPeer(ctx context.Context, module, versionOf string, say func(format string, args ...any)) (string, error) {
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	name := filepath.Base(module)
	version, hash, err := peerIdentity(module, versionOf)
	if err != nil {
		return "", fmt.Errorf("build the peer %s: %w", name, err)
	}
	dir := filepath.Join(filepath.Dir(cache), "peers", name+"-"+version+"-"+hash)
	binary := filepath.Join(dir, name)
	if _, err := os.Stat(binary); err == nil {
		say("the peer, %s %s, was built earlier", name, version)
		return binary, nil
	}
	say("building the peer, %s %s: a few minutes with a cold build cache", name, version)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("build the peer %s: %w", name, err)
	}
	tmp := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer os.Remove(tmp)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "netgo,grpcnotrace", "-ldflags", "-s -w", "-o", tmp, ".")
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the peer %s: %w:\n%s", name, err, output)
	}
	return binary, os.Rename(tmp, binary) // whole, or not there
}

func peerIdentity(module, versionOf string) (version, hash string, err error) {
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		content, err := os.ReadFile(filepath.Join(module, name))
		if err != nil {
			return "", "", err
		}
		sum.Write(content)
		if name != "go.mod" {
			continue
		}
		mod, err := modfile.Parse(name, content, nil)
		if err != nil {
			return "", "", err
		}
		for _, r := range mod.Require {
			if strings.HasSuffix(r.Mod.Path, versionOf) {
				version = r.Mod.Version
			}
		}
	}
	if version == "" {
		return "", "", fmt.Errorf("%s/go.mod requires no module …%s", module, versionOf)
	}
	return version, hex.EncodeToString(sum.Sum(nil)[:4]), nil
}
