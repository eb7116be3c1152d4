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

// identityName is the file that says whose frames these are. It is written when
// something in it changes; if it breaks it is made again from the segments.
const identityName = "spool.json"

const layoutVersion = 1

type identityFile struct {
	Format  string `json:"format"` // for whoever finds the file
	Version int    `json:"version"`
	Epoch   string `json:"epoch"`
	Check   string `json:"check"` // CRC-32C of version and epoch

	// Owner is whose spool this is; empty for nobody's, as older ones are.
	Owner string `json:"owner,omitempty"`
	// Place is the identity of this very file: in a copy it is another's.
	Place string `json:"place,omitempty"`
	// Boot is set when frames were given out before they were synced: should the
	// machine have started again since, some of them may be gone.
	Boot string `json:"boot,omitempty"`
	// Check2 is CRC-32C of Owner, Place and Boot.
	Check2 string `json:"check2,omitempty"`
}

const identityFormat = "longhaul spool"

func (i *identityFile) check() string {
	return fmt.Sprintf("%08x", crc32.Checksum(fmt.Appendf(nil, "%d %s", i.Version, i.Epoch), castagnoli))
}

func (i *identityFile) check2() string {
	return fmt.Sprintf("%08x", crc32.Checksum(fmt.Appendf(nil, "%q %q %q", i.Owner, i.Place, i.Boot), castagnoli))
}

// readIdentity returns what spool.json says and the identity of the file itself.
// whole is false when it is missing or cannot be read.
func readIdentity(fsys fileSystem, path string) (id identityFile, place string, whole bool, err error) {
	text, err := readFile(fsys, path, 64<<10)
	if err != nil {
		return id, "", false, err
	}
	if json.Unmarshal(text, &id) != nil || id.Check != id.check() {
		return identityFile{}, "", false, nil
	}
	if id.Check2 != id.check2() { // damaged, or of an older longhaul: an owner misread must not be taken for another's
		id.Owner, id.Place, id.Boot = "", "", ""
	}
	if f, err := fsys.OpenFile(path, os.O_RDONLY); err == nil {
		place = f.Identity()
		f.Close()
	}
	return id, place, true, nil
}

// identify sets the epoch: from spool.json, else from what the lanes hold, else
// a new one. known says that spool.json is there and whole.
func (s *Spool) identify() (known bool, err error) {
	fsys, path := s.opts.fs, filepath.Join(s.opts.Dir, identityName)
	id, place, whole, err := readIdentity(fsys, path)
	missing := errors.Is(err, fs.ErrNotExist)
	if whole {
		if id.Version > layoutVersion {
			return false, fmt.Errorf("it was made by a newer longhaul (layout %d, this one knows %d): start that version, or name another directory", id.Version, layoutVersion)
		}
		if epoch, err := frame.ParseEpoch(id.Epoch); err == nil {
			s.epoch, s.identity = epoch, id
			return true, s.checkOwner(place)
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

// ErrNotOwner means the spool belongs to another origin.
var ErrNotOwner = errors.New("spool directory belongs to another")

// checkOwner refuses another's spool, and notices one that is not where, or not
// as, it was left: copied, restored from a backup, or cut off from what the
// kernel still had to write. Numbers may then have been given out that its files
// know nothing of.
func (s *Spool) checkOwner(place string) error {
	id := &s.identity
	if id.Owner != "" && s.opts.Owner != "" && id.Owner != s.opts.Owner {
		return fmt.Errorf("%w: %s holds the frames of %s, and this is %s: shipped from here they would be taken for this one's, or for repeats: give each node a directory of its own; if %s was renamed to %s, stop the collector and run `longhaul spool adopt --as %s %s`",
			ErrNotOwner, s.opts.Dir, id.Owner, s.opts.Owner, id.Owner, s.opts.Owner, s.opts.Owner, s.opts.Dir)
	}
	switch {
	case id.Place != "" && place != "" && id.Place != place:
		s.displaced = "the spool's directory was copied or restored"
	case id.Boot != "" && id.Boot != s.opts.boot():
		s.displaced = "the machine has started again and the spool was not always synced (fsync)"
	}
	return nil
}

// saveIdentity writes spool.json if it would change.
func (s *Spool) saveIdentity(known bool) error {
	id := identityFile{Format: identityFormat, Version: layoutVersion, Epoch: s.epoch.String(), Owner: s.opts.Owner, Place: s.identity.Place}
	if id.Owner == "" {
		id.Owner = s.identity.Owner
	}
	if s.opts.Fsync != FsyncAlways {
		if id.Boot = s.opts.boot(); id.Boot == "" {
			id.Boot = "unknown"
		}
	}
	id.Check, id.Check2 = id.check(), id.check2()
	if known && s.displaced == "" && id == s.identity {
		return nil
	}
	if err := writeIdentity(s.opts.fs, s.opts.Dir, &id); err != nil {
		return err
	}
	s.identity = id
	return nil
}

// saveSynced notes that everything is on the disk, so that a planned restart of
// the machine is not taken for a power cut.
func (s *Spool) saveSynced() {
	id := s.identity
	id.Boot = ""
	if err := writeIdentity(s.opts.fs, s.opts.Dir, &id); err == nil {
		s.identity = id
	}
}

// writeIdentity writes spool.json, with its own place in it.
func writeIdentity(fsys fileSystem, dir string, id *identityFile) error {
	err := writeFileKnowing(fsys, filepath.Join(dir, identityName), true, func(place string) ([]byte, error) {
		id.Place = place
		id.Check, id.Check2 = id.check(), id.check2()
		text, err := json.MarshalIndent(id, "", "  ")
		return append(text, '\n'), err
	})
	if err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// Adopt makes owner the owner of the spool in dir, which no process may have
// open: for a node that was renamed. What it holds is shipped under the new name.
func Adopt(dir, owner string) (former string, err error) {
	return adopt(osFS{}, dir, owner)
}

func adopt(fsys fileSystem, dir, owner string) (former string, err error) {
	path := filepath.Join(dir, identityName)
	id, place, whole, err := readIdentity(fsys, path)
	switch {
	case err != nil:
		return "", explainInspect(dir, err)
	case !whole:
		return "", fmt.Errorf("%s cannot be read; the next start of the collector makes it again, for the node that starts", path)
	case id.Version > layoutVersion:
		return "", fmt.Errorf("it was made by a newer longhaul (layout %d, this one knows %d): use that version's program", id.Version, layoutVersion)
	}
	lock, err := fsys.Lock(filepath.Join(dir, lockName))
	if err != nil {
		return "", explainOpen(dir, err)
	}
	defer lock.Close()
	former, id.Owner = id.Owner, owner
	copied := id.Place != "" && id.Place != place // must still be known for a copy
	err = writeFileKnowing(fsys, path, true, func(mine string) ([]byte, error) {
		if !copied {
			id.Place = mine
		}
		id.Check2 = id.check2()
		text, err := json.MarshalIndent(&id, "", "  ")
		return append(text, '\n'), err
	})
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return "", explainOpen(dir, err)
	}
	return former, nil
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
