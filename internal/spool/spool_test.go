package spool

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/longhaul/longhaul/internal/frame"
)

var logs = frame.Lane{Signal: frame.Logs, Seq: 1}

// quiet keeps what a test provokes out of its output.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func open(t testing.TB, o Options) *Spool {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func closeSpool(t testing.TB, s *Spool) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// body is a payload that tells which frame it belongs to.
func body(i, size int) []byte {
	b := bytes.Repeat([]byte{byte(i), byte(i >> 8), 'x'}, size/3+1)[:size]
	copy(b, fmt.Sprintf("frame %d ", i))
	return b
}

func add(t testing.TB, s *Spool, signal frame.Signal, i, size int) uint64 {
	t.Helper()
	n, err := s.Append(context.Background(), frame.Header{Signal: signal, Codec: frame.OTLPZstd, Items: uint32(i), Uncompressed: uint32(size)}, body(i, size))
	if err != nil {
		t.Fatalf("append %d: %v", i, err)
	}
	return n
}

// readAll reads a lane from a number to its end and checks what it gets.
func readAll(t testing.TB, s *Spool, lane frame.Lane, from uint64, maxBytes int) []Record {
	t.Helper()
	var all []Record
	for {
		records, err := s.Read(lane, from, maxBytes)
		if err != nil {
			t.Fatalf("read from %d: %v", from, err)
		}
		if len(records) == 0 {
			return all
		}
		for _, r := range records {
			h, _, n, err := frame.Parse(r.Bytes)
			if err != nil || n != len(r.Bytes) || h != r.Header || h.Number != r.Number || r.Number < from {
				t.Fatalf("record %d from %d: %v, %+v", r.Number, from, err, r.Header)
			}
			from = r.Number + 1
		}
		all = append(all, records...)
	}
}

func numbers(records []Record) []uint64 {
	out := make([]uint64, len(records))
	for i, r := range records {
		out[i] = r.Number
	}
	return out
}

func laneStats(t testing.TB, s *Spool, id frame.Lane) LaneStats {
	t.Helper()
	for _, l := range s.Stats().Lanes {
		if l.Lane == id {
			return l
		}
	}
	t.Fatalf("no lane %s", id)
	return LaneStats{}
}

func TestAppendReadConfirmAcrossRestarts(t *testing.T) {
	o := Options{Dir: t.TempDir(), MaxBytes: 1 << 20, SegmentBytes: 4 << 10}
	s := open(t, o)
	for i := 1; i <= 50; i++ {
		if n := add(t, s, frame.Logs, i, 300); n != uint64(i) {
			t.Fatalf("append %d got number %d", i, n)
		}
	}
	add(t, s, frame.Traces, 7, 10)
	for _, maxBytes := range []int{0, 1, 500, 3000, 1 << 20} {
		if got := readAll(t, s, logs, 0, maxBytes); len(got) != 50 || got[49].Header.Items != 50 {
			t.Fatalf("maxBytes %d: read %d frames", maxBytes, len(got))
		}
	}
	s.Confirm(logs, 20)
	s.Confirm(logs, 3) // going back means nothing
	check := func(s *Spool) {
		t.Helper()
		st := laneStats(t, s, logs)
		if st.Floor != 21 || st.Next != 51 || st.Confirmed != 20 || st.Frames != 30 || st.Items != 50*51/2-20*21/2 {
			t.Fatalf("%+v", st)
		}
		if got := readAll(t, s, logs, 0, 5000); len(got) != 30 || got[0].Number != 21 {
			t.Fatalf("read %v", numbers(got))
		}
	}
	check(s)
	closeSpool(t, s)
	epoch := s.Epoch()
	s = open(t, o)
	if s.Epoch() != epoch {
		t.Fatal("another epoch after a restart")
	}
	check(s)
	s.Confirm(logs, 1000)
	closeSpool(t, s)
	s = open(t, o)
	if st := laneStats(t, s, logs); st.Next != 51 || st.Floor != 51 || st.Frames != 0 || st.Items != 0 {
		t.Fatalf("after all was confirmed: %+v", st)
	}
	if n := add(t, s, frame.Logs, 51, 100); n != 51 {
		t.Fatalf("numbering went back to %d", n)
	}
	for _, l := range s.Stats().Lanes {
		if l.Lost != [frame.NumCauses]uint64{} {
			t.Fatalf("lost something: %+v", l)
		}
	}
}
