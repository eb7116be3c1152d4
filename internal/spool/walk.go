package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/longhaul/longhaul/internal/frame"
)

// identity is what every frame of a lane's segments has in common.
type identity struct {
	epoch frame.Epoch
	lane  frame.Lane
}

func (id identity) matches(h *frame.Header) bool {
	return h.Epoch == id.epoch && h.LaneID() == id.lane
}

// errDamaged means bytes in a segment are not the frame they should be.
var errDamaged = errors.New("damaged frame in segment")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// headers reads frame headers at given offsets through a small window.
type headers struct {
	r      io.ReaderAt
	end    int64
	start  int64
	window []byte
	buffer [frame.MaxHeader]byte
}

// at returns the header at offset and the length of its frame. A frame of a
// newer version is as good as any: the spool only carries it. errDamaged covers
// a frame that ends past end.
func (r *headers) at(offset int64) (frame.Header, int, error) {
	if offset < r.start || offset+frame.HeaderSize > r.start+int64(len(r.window)) {
		if err := r.fill(offset); err != nil {
			return frame.Header{}, 0, err
		}
	}
	h, n, err := frame.ParseHeader(r.window[offset-r.start:])
	if errors.Is(err, frame.ErrTruncated) && offset != r.start {
		if err := r.fill(offset); err != nil {
			return frame.Header{}, 0, err
		}
		h, n, err = frame.ParseHeader(r.window)
	}
	if err != nil && !errors.Is(err, frame.ErrVersion) || offset+int64(n) > r.end {
		return h, n, errDamaged
	}
	return h, n, nil
}

func (r *headers) fill(offset int64) error {
	size := max(0, min(int64(len(r.buffer)), r.end-offset))
	n, err := r.r.ReadAt(r.buffer[:size], offset)
	r.start, r.window = offset, r.buffer[:n]
	if err != nil && err != io.EOF {
		return err
	}
	return nil
}

// each visits the intact frames of a view by their headers, from offset on,
// until visit returns false.
func (v *view) each(r io.ReaderAt, offset int64, visit func(h *frame.Header, offset int64, length int) bool) error {
	hs := headers{r: r, end: v.size}
	for {
		offset, _ = v.past(offset)
		if offset >= v.size {
			return nil
		}
		h, n, err := hs.at(offset)
		if err != nil {
			return err
		}
		if !v.expect.matches(&h) {
			return errDamaged
		}
		if !visit(&h, offset, n) {
			return nil
		}
		offset += int64(n)
	}
}

// find returns the first frame numbered from or higher, and its offset.
func (v *view) find(r io.ReaderAt, from uint64) (h frame.Header, offset int64, err error) {
	offset = -1
	err = v.each(r, v.markFor(from).offset, func(at *frame.Header, o int64, _ int) bool {
		if at.Number < from {
			return true
		}
		h, offset = *at, o
		return false
	})
	if err == nil && offset < 0 {
		err = errDamaged // the segment said it had one
	}
	return h, offset, err
}

// countTo measures the frames numbered upTo or lower.
func (v *view) countTo(r io.ReaderAt, upTo uint64) (counts, error) {
	m := v.markFor(upTo)
	sum := m.before
	err := v.each(r, m.offset, func(h *frame.Header, _ int64, n int) bool {
		if h.Number > upTo {
			return false
		}
		sum = sum.plus(counts{1, uint64(h.Items), int64(n)})
		return true
	})
	return sum, err
}

// verifyFrame checks the checksum of the frame of n bytes at offset in small
// steps, so that memory does not depend on what is being read.
func verifyFrame(r io.ReaderAt, offset int64, n int, buffer []byte) error {
	var sum uint32
	for left := n - frame.TrailerSize; left > 0; {
		part := buffer[:min(left, len(buffer))]
		if _, err := io.ReadFull(io.NewSectionReader(r, offset, int64(len(part))), part); err != nil {
			return err
		}
		sum = crc32.Update(sum, castagnoli, part)
		offset += int64(len(part))
		left -= len(part)
	}
	var trailer [frame.TrailerSize]byte
	if _, err := io.ReadFull(io.NewSectionReader(r, offset, frame.TrailerSize), trailer[:]); err != nil {
		return err
	}
	if sum != binary.LittleEndian.Uint32(trailer[:]) {
		return errDamaged
	}
	return nil
}

// scan is what reading a whole segment file finds.
type scan struct {
	segment       // low, high, all, marks and holes are filled in
	missing []gap // between its frames, and before the first
	end     int64 // where the last intact frame ends
	beyond  bool  // stopped at a frame that belongs to the next segment
	// The highest number in an intact header of a whole but damaged frame,
	// and the items of the frames like it since the last intact one.
	visible, visibleItems uint64
	visibleAfter          uint64 // items of all frames up to visible, as its header says
	settled               counts // of the frames below the settled number
}

// scanRules says what to look for in a segment file.
type scanRules struct {
	identity
	first   uint64 // the number the segment should begin with
	limit   uint64 // the number the next segment begins with
	settled uint64 // frames below count as confirmed
	verify  bool   // check payloads too
	// lost are numbers counted as lost before: their frames stay out even if
	// the disk gives them back.
	lost []numberRange
}

// scanSegment walks size bytes of r, steps over what is not an intact frame of
// this lane in rising order, and tells what is there and what is missing. It
// fails for no content; unreadable bytes are damage.
func scanSegment(r io.ReaderAt, size int64, rules scanRules) *scan {
	result := &scan{segment: segment{first: rules.first, high: rules.first - 1, size: size}}
	hs := &headers{r: r, end: size}
	buffer := make([]byte, 64<<10)
	expected := rules.first
	intact := func(offset int64, verify bool) (frame.Header, int, bool) {
		h, n, err := hs.at(offset)
		if err != nil || !rules.matches(&h) || h.Number < expected || contains(rules.lost, h.Number) {
			return h, n, false
		}
		if verify && verifyFrame(r, offset, n, buffer) != nil {
			if h.Number > result.visible && h.Number < rules.limit {
				result.visible = h.Number
				result.visibleItems += uint64(h.Items)
				result.visibleAfter = h.Before + uint64(h.Items)
			}
			return h, n, false
		}
		return h, n, true
	}
	for offset := int64(0); offset < size; {
		h, n, ok := intact(offset, rules.verify)
		if !ok {
			from := offset
			offset = resync(r, offset+1, size, func(o int64) bool {
				_, _, ok := intact(o, true)
				return ok
			})
			result.holes = append(result.holes, extent{from, offset})
			continue
		}
		if h.Number >= rules.limit {
			result.beyond = true
			break
		}
		if h.Number > expected {
			missing := gap{numberRange: numberRange{expected, h.Number - 1}}
			if result.all.frames > 0 {
				missing = gapOf(expected, h.Number-1, result.after, h.Before)
			}
			result.missing = append(result.missing, missing)
		}
		if h.Number < rules.settled {
			result.settled = result.settled.plus(counts{1, uint64(h.Items), int64(n)})
		}
		result.note(&h, offset, n)
		expected = h.Number + 1
		result.visibleItems = 0
		offset += int64(n)
		result.end = offset
	}
	return result
}

// resync returns the first offset from which good accepts, or size. Parts that
// cannot be read are skipped in steps of a window.
func resync(r io.ReaderAt, offset, size int64, good func(offset int64) bool) int64 {
	buffer := make([]byte, 64<<10)
	for offset < size {
		n, err := r.ReadAt(buffer[:min(int64(len(buffer)), size-offset)], offset)
		part := buffer[:n]
		for i := 0; ; i++ {
			at := bytes.Index(part[i:], []byte(frame.Magic))
			if at < 0 {
				break
			}
			i += at
			if good(offset + int64(i)) {
				return offset + int64(i)
			}
		}
		switch {
		case err != nil && err != io.EOF && n == 0:
			offset += 4096 // a bad sector; try behind it
		case n < len(frame.Magic):
			return size
		default:
			offset += int64(n - len(frame.Magic) + 1)
		}
	}
	return size
}
