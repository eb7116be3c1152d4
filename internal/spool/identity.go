package spool

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/longhaul/longhaul/internal/frame"
)

// identityName is the file that says whose frames these are. It is written
// once; if it breaks it is made again from the segments.
const identityName = "spool.json"

const layoutVersion = 1

type identityFile struct {
	Format  string `json:"format"` // for whoever finds the file
	Version int    `json:"version"`
	Epoch   string `json:"epoch"`
	Check   string `json:"check"` // CRC-32C of version and epoch
}

const identityFormat = "longhaul spool"

func (i *identityFile) check() string {
	return fmt.Sprintf("%08x", crc32.Checksum(fmt.Appendf(nil, "%d %s", i.Version, i.Epoch), castagnoli))
}

// identify sets the epoch: from spool.json, else from what the lanes hold, else
// a new one. named says that spool.json is there and whole.
func (s *Spool) identify() (named bool, err error) {
	fsys, path := s.opts.fs, filepath.Join(s.opts.Dir, identityName)
	text, err := readFile(fsys, path, 64<<10)
	missing := errors.Is(err, fs.ErrNotExist)
	if err == nil {
		var id identityFile
		if json.Unmarshal(text, &id) == nil && id.Check == id.check() {
			if id.Version > layoutVersion {
				return false, fmt.Errorf("it was made by a newer longhaul (layout %d, this one knows %d): start that version, or name another directory", id.Version, layoutVersion)
			}
			if epoch, err := frame.ParseEpoch(id.Epoch); err == nil {
				s.epoch = epoch
				return true, nil
			}
		}
	}
	if s.hasSegments() { // without any frame a new life costs nothing
		s.epoch = s.epochFromLanes()
	}
	found := s.epoch != 0
	if !found {
		s.epoch = frame.NewEpoch()
	}
	if !missing {
		s.quarantineFile(path)
		s.opts.Logger.Warn("spool.json was damaged and is made again; the old one is in quarantine", "dir", s.opts.Dir, "epoch", s.epoch, "epoch_from_segments", found)
	}
	return false, nil
}

func (s *Spool) writeIdentity() error {
	id := identityFile{Format: identityFormat, Version: layoutVersion, Epoch: s.epoch.String()}
	id.Check = id.check()
	text, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFileAtomic(s.opts.fs, filepath.Join(s.opts.Dir, identityName), append(text, '\n'), true); err != nil {
		return err
	}
	return s.opts.fs.SyncDir(s.opts.Dir)
}

// epochFromLanes asks the ledgers and, failing that, the frames.
func (s *Spool) epochFromLanes() frame.Epoch {
	for _, l := range s.lanes {
		if entry := l.ledger.load(s.opts.fs); entry != nil {
			if epoch, err := frame.ParseEpoch(entry.Epoch); err == nil {
				return epoch
			}
		}
	}
	for _, l := range s.lanes {
		for _, seg := range l.segments {
			if epoch := firstEpoch(s.opts.fs, seg.path, seg.size); epoch != 0 {
				return epoch
			}
		}
	}
	return 0
}

// firstEpoch returns the epoch of the first intact frame in a file, or 0.
func firstEpoch(fsys fileSystem, path string, size int64) (epoch frame.Epoch) {
	f, err := fsys.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return 0
	}
	defer f.Close()
	hs := &headers{r: f, end: size}
	buffer := make([]byte, 64<<10)
	resync(f, 0, size, func(offset int64) bool {
		h, n, err := hs.at(offset)
		if err != nil || verifyFrame(f, offset, n, buffer) != nil {
			return false
		}
		epoch = h.Epoch
		return true
	})
	return epoch
}
