package containers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// buildWriter builds the program of the containers: static, for there is
// nothing else in its image.
func buildWriter(t *testing.T, dir string) []byte {
	t.Helper()
	binary := filepath.Join(dir, "writer")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./writer")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	content, err := os.ReadFile(binary)
	require.NoError(t, err)
	return content
}

// blob is a file of an OCI image layout, named by its hash.
type blob struct {
	mediaType string
	content   []byte
}

func (b blob) digest() string {
	sum := sha256.Sum256(b.content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.mediaType, "digest": b.digest(), "size": len(b.content)}
}

const ociImage = "application/vnd.oci.image."

// writeImage writes an OCI image archive with one file, /writer. Without a
// command of its own it is what a pod's sandbox runs.
func writeImage(t *testing.T, path, name string, program []byte) {
	t.Helper()
	encode := func(v any) []byte {
		b, err := json.Marshal(v)
		require.NoError(t, err)
		return b
	}
	layer := blob{ociImage + "layer.v1.tar", archive(t, map[string][]byte{"writer": program}, 0o755)}
	config := blob{ociImage + "config.v1+json", encode(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/writer"}, "Cmd": []string{"pause"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer.digest()}},
	})}
	manifest := blob{ociImage + "manifest.v1+json", encode(map[string]any{
		"schemaVersion": 2, "mediaType": ociImage + "manifest.v1+json",
		"config": config.descriptor(), "layers": []any{layer.descriptor()},
	})}
	entry := manifest.descriptor()
	entry["annotations"] = map[string]string{"io.containerd.image.name": name}
	files := map[string][]byte{
		"oci-layout": encode(map[string]any{"imageLayoutVersion": "1.0.0"}),
		"index.json": encode(map[string]any{"schemaVersion": 2, "manifests": []any{entry}}),
	}
	for _, b := range []blob{layer, config, manifest} {
		files["blobs/sha256/"+b.digest()[len("sha256:"):]] = b.content
	}
	require.NoError(t, os.WriteFile(path, archive(t, files, 0o644), 0o644))
}

func archive(t *testing.T, files map[string][]byte, mode int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range files {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(content)), Typeflag: tar.TypeReg}))
		_, err := w.Write(content)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}
