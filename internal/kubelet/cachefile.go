package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	cacheVersion = 1
	// maxCacheBytes bounds what is read back; 2,000 pods take about 4 MB.
	maxCacheBytes = 64 << 20
)

// errCorruptCache says that the cache file does not parse or match its sum.
var errCorruptCache = errors.New("the file of known pods is corrupt")

type cacheFile struct {
	Version int             `json:"version"`
	CRC32C  string          `json:"crc32c"`
	Pods    json.RawMessage `json:"pods"`
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func sum(pods []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(pods, castagnoli)) }

// loadCache reads the file. A missing one is no error. A corrupt one is moved
// aside; the error then wraps errCorruptCache.
func loadCache(path string) ([]*Pod, error) {
	text, err := readBounded(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the file of known pods: %w", err)
	}
	pods, problem := parseCache(text)
	if problem == nil {
		return pods, nil
	}
	aside := path + ".corrupt"
	if err := os.Rename(path, aside); err != nil {
		return nil, errors.Join(fmt.Errorf("%w: %w", errCorruptCache, problem), err)
	}
	return nil, fmt.Errorf("%w: %w; kept as %s", errCorruptCache, problem, aside)
}

func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(io.LimitReader(file, maxCacheBytes))
}

func parseCache(text []byte) ([]*Pod, error) {
	var file cacheFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, err
	}
	if file.Version != cacheVersion {
		return nil, fmt.Errorf("version %d is not %d", file.Version, cacheVersion)
	}
	if got := sum(file.Pods); got != file.CRC32C {
		return nil, fmt.Errorf("checksum is %s, not %s", got, file.CRC32C)
	}
	var pods []*Pod
	if err := json.Unmarshal(file.Pods, &pods); err != nil {
		return nil, err
	}
	for i, p := range pods {
		if p == nil || p.UID == "" {
			return nil, fmt.Errorf("pod %d has no UID", i)
		}
	}
	return pods, nil
}

func encodeCache(pods []*Pod) (content []byte, checksum string, err error) {
	list, err := json.Marshal(pods)
	if err != nil {
		return nil, "", err
	}
	checksum = sum(list)
	content, err = json.Marshal(cacheFile{Version: cacheVersion, CRC32C: checksum, Pods: list})
	return content, checksum, err
}

// saveCache replaces the file so that after a crash it is the old or the new
// one, whole.
func saveCache(path string, content []byte) error {
	temporary := path + ".tmp"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	directory, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}
