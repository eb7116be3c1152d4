package spool

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strconv"
	"sync"

	"github.com/longhaul/longhaul/internal/frame"
)

// The ledger is what a lane remembers that its segments cannot tell: how far
// it is confirmed, what it lost and why. It is a help, not a condition: without
// it the lane opens, sends again what it holds, and takes its losses from the
// newest frame.
//
// The file has two slots, written in turn so that one is always whole. A slot
// is eight hexadecimal digits of CRC-32C, a space, JSON and a line feed, filled
// up with zeros. It is written after every commit without an fsync (a kill of
// the process loses nothing, a power cut the latest), and with one before
// segments are deleted, so that what is gone from the disk is always accounted
// for in the ledger.
const (
	ledgerName     = "ledger"
	ledgerSlot     = 8 << 10
	maxLedgerRange = 100 // damaged ranges kept; more no longer fit the slot
)

type ledgerEntry struct {
	Write     uint64        `json:"write"` // rises with every write; the higher slot wins
	Epoch     string        `json:"epoch"`
	Lane      string        `json:"lane"`
	Next      uint64        `json:"next"`
	Floor     uint64        `json:"floor"`
	Confirmed uint64        `json:"confirmed"`
	ItemsIn   uint64        `json:"items_in"`
	Before    uint64        `json:"before,omitempty"`
	ItemsOut  uint64        `json:"items_confirmed"`
	Lost      []uint64      `json:"lost"`
	Damaged   []numberRange `json:"damaged,omitempty"`
}

// ledgerFile is the open ledger of a lane.
type ledgerFile struct {
	mu    sync.Mutex
	path  string
	f     file
	write uint64
	err   error // of the last write
}

// saveLedger writes the lane's state. It reports no error: the callers go on
// without, which costs at worst a count after a restart.
func (s *Spool) saveLedger(l *lane, durable bool) {
	l.ledger.mu.Lock()
	defer l.ledger.mu.Unlock()
	s.mu.Lock()
	entry := ledgerEntry{
		Epoch: s.epoch.String(), Lane: l.id.String(),
		Next: l.next, Floor: l.floor(), Confirmed: l.confirmed,
		ItemsIn: l.itemsIn, Before: l.before, ItemsOut: l.itemsConfirmed,
		Lost: append([]uint64(nil), l.lost[:]...), Damaged: l.damaged,
	}
	s.mu.Unlock()
	if len(entry.Damaged) > maxLedgerRange {
		entry.Damaged = entry.Damaged[len(entry.Damaged)-maxLedgerRange:]
	}
	err := l.ledger.save(s.opts.fs, entry, durable)
	if l.ledger.err = err; err != nil {
		s.ledgerTrouble.report(s.opts.Logger, "cannot write the lane's ledger: after a restart frames may be sent twice and losses counted again: check the disk", "lane", l.id, "error", err)
	} else {
		s.ledgerTrouble.over()
	}
}

func (lf *ledgerFile) save(fsys fileSystem, entry ledgerEntry, durable bool) error {
	lf.write++
	entry.Write = lf.write
	text, err := json.Marshal(entry)
	if err != nil {
		return err
	}
	slot := make([]byte, 0, ledgerSlot)
	slot = fmt.Appendf(slot, "%08x %s\n", crc32.Checksum(text, castagnoli), text)
	if len(slot) > ledgerSlot {
		return fmt.Errorf("ledger entry of %d bytes does not fit its slot", len(slot))
	}
	slot = slot[:ledgerSlot]
	if lf.f != nil && gone(lf.f) {
		lf.f.Close()
		lf.f = nil
	}
	if lf.f == nil {
		f, err := fsys.OpenFile(lf.path, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return err
		}
		lf.f = f
	}
	_, err = lf.f.WriteAt(slot, int64(entry.Write%2)*ledgerSlot)
	if err == nil && durable {
		err = lf.f.Sync()
	}
	if err != nil {
		lf.f.Close()
		lf.f = nil // another attempt begins with another descriptor
	}
	return err
}

// load returns the newest whole slot, or nil.
func (lf *ledgerFile) load(fsys fileSystem) *ledgerEntry {
	f, err := fsys.OpenFile(lf.path, os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	var newest *ledgerEntry
	slot := make([]byte, ledgerSlot)
	for i := range int64(2) {
		n, err := f.ReadAt(slot, i*ledgerSlot)
		if err != nil && err != io.EOF {
			continue
		}
		if entry := parseLedgerSlot(slot[:n]); entry != nil && (newest == nil || entry.Write > newest.Write) {
			newest = entry
		}
	}
	if newest != nil {
		lf.write = newest.Write
	}
	return newest
}

func parseLedgerSlot(slot []byte) *ledgerEntry {
	end := 0
	for end < len(slot) && slot[end] != '\n' {
		end++
	}
	if end < 9 || end == len(slot) || slot[8] != ' ' {
		return nil
	}
	sum, err := strconv.ParseUint(string(slot[:8]), 16, 32)
	if err != nil || uint32(sum) != crc32.Checksum(slot[9:end], castagnoli) {
		return nil
	}
	var entry ledgerEntry
	if json.Unmarshal(slot[9:end], &entry) != nil || len(entry.Lost) != frame.NumCauses || entry.Next == 0 {
		return nil
	}
	return &entry
}

func (lf *ledgerFile) close() error {
	lf.mu.Lock()
	defer lf.mu.Unlock()
	if lf.f == nil {
		return nil
	}
	err := lf.f.Close()
	lf.f = nil
	return err
}
