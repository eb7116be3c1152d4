package spoolcmd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/spool"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"longhaul": longhaul})
}

func longhaul() {
	root := &cobra.Command{Use: "longhaul", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(NewCommand())
	if err := root.ExecuteContext(context.Background()); err != nil {
		fmt.Fprintf(os.Stderr, "longhaul: %v\n", err)
		os.Exit(1)
	}
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fill": fill, "lie": lie, "flip": flip, "cut": cut, "hold": hold, "snapshot": snapshot, "seal": seal, "own": own,
		},
	})
}

// logsFrame is a frame's header and payload: one resource, items records.
func logsFrame(i, items int) (frame.Header, []byte, error) {
	logs := plog.NewLogs()
	scope := logs.ResourceLogs().AppendEmpty().ScopeLogs().AppendEmpty()
	at := time.Date(2026, 3, 1, 12, 0, i, 0, time.UTC)
	for n := range items {
		record := scope.LogRecords().AppendEmpty()
		record.SetTimestamp(pcommon.NewTimestampFromTime(at))
		record.Body().SetStr(fmt.Sprintf("order %d line %d", i, n))
	}
	otlp, err := plogotlp.NewExportRequestFromLogs(logs).MarshalProto()
	if err != nil {
		return frame.Header{}, nil, err
	}
	codec, err := frame.CodecByID(frame.OTLPZstd)
	if err != nil {
		return frame.Header{}, nil, err
	}
	payload, err := codec.Encode(nil, otlp)
	return frame.Header{
		Signal: frame.Logs, Codec: frame.OTLPZstd, Items: uint32(items), Uncompressed: uint32(len(otlp)),
		First: at.UnixNano(), Last: at.UnixNano(),
	}, payload, err
}

func open(dir string) (*spool.Spool, error) {
	return spool.Open(spool.Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 900, Logger: slog.New(slog.DiscardHandler)})
}

func appendLogs(s *spool.Spool, from, to int) error {
	for i := from; i <= to; i++ {
		h, payload, err := logsFrame(i, 2)
		if err == nil {
			_, err = s.Append(context.Background(), h, payload)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fill DIR FRAMES [CONFIRMED [SHIPPED]] puts frames of two log records each into
// the spool, four to a segment.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	s, err := open(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(appendLogs(s, 1, number(ts, args[1])))
	if len(args) > 2 {
		s.Confirm(frame.Lane{Signal: frame.Logs, Seq: 1}, uint64(number(ts, args[2])))
	}
	if len(args) > 3 {
		ts.Check(s.SaveState("shipped.json", fmt.Appendf(nil, `{"epoch":%q,"lanes":{"logs/1":{"shipped":%s}}}`, s.Epoch(), args[3])))
	}
	ts.Check(s.Close())
}

// seal DIR FRAMES ends the live lane of logs and puts frames into the next.
func seal(ts *testscript.TestScript, _ bool, args []string) {
	s, err := open(ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = s.Seal(frame.Logs)
	ts.Check(err)
	ts.Check(appendLogs(s, 1, number(ts, args[1])))
	ts.Check(s.Close())
}

// own DIR OWNER opens a spool as a collector of that name does.
func own(ts *testscript.TestScript, fails bool, args []string) {
	s, err := spool.Open(spool.Options{Dir: ts.MkAbs(args[0]), Owner: args[1], Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		if !fails {
			ts.Fatalf("%v", err)
		}
		return
	}
	ts.Check(s.Close())
	if fails {
		ts.Fatalf("opened as %s", args[1])
	}
}

// lie DIR appends intact frames whose payload is not what the header says: one
// is not zstd, one not OTLP, one has fewer items.
func lie(ts *testscript.TestScript, _ bool, args []string) {
	s, err := open(ts.MkAbs(args[0]))
	ts.Check(err)
	h, payload, err := logsFrame(1, 2)
	ts.Check(err)
	codec, err := frame.CodecByID(frame.OTLPZstd)
	ts.Check(err)
	text := []byte("this is no protobuf at all")
	packed, err := codec.Encode(nil, text)
	ts.Check(err)
	few, bare, mixed := h, h, h
	few.Items = 3
	mixed.Uncompressed = uint32(len(text))
	for _, f := range []struct {
		header  frame.Header
		payload []byte
	}{{bare, text}, {mixed, packed}, {few, payload}} {
		_, err := s.Append(context.Background(), f.header, f.payload)
		ts.Check(err)
	}
	ts.Check(s.Close())
}

// flip FILE OFFSET inverts a byte.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	b[number(ts, args[1])] ^= 0xff
	ts.Check(os.WriteFile(path, b, 0o600))
}

// cut FILE BYTES takes bytes from the file's end.
func cut(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	info, err := os.Stat(path)
	ts.Check(err)
	ts.Check(os.Truncate(path, info.Size()-int64(number(ts, args[1]))))
}

// hold DIR keeps a spool open until the script ends.
func hold(ts *testscript.TestScript, _ bool, args []string) {
	s, err := open(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { s.Close() })
}

// snapshot DIR FILE writes down names, sizes, times and contents of all files.
func snapshot(ts *testscript.TestScript, _ bool, args []string) {
	out, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(describeTree(out, ts.MkAbs(args[0])))
	ts.Check(out.Close())
}

func describeTree(out io.Writer, dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		hash := ""
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			hash = hex.EncodeToString(sum[:])
		}
		_, err = fmt.Fprintln(out, path, info.Mode(), info.Size(), info.ModTime().UnixNano(), hash)
		return err
	})
}

func number(ts *testscript.TestScript, text string) int {
	n, err := strconv.Atoi(text)
	ts.Check(err)
	return n
}
