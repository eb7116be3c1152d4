package orderapp

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"log/slog"
	"sync"

	"go.opentelemetry.io/otel/trace"
)

// castagnoli is the polynomial of the checksum in the ledger.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// LineSum is the checksum the ledger keeps of a log line.
func LineSum(line []byte) uint32 { return crc32.Checksum(line, castagnoli) }

// Line is what every JSON log line has in common; lines carry more fields.
type Line struct {
	Run     string `json:"run"`
	Service string `json:"service"`
	Seq     int64  `json:"seq"`
}

// logger writes the JSON log of one service to its container log.
type logger struct {
	mu      sync.Mutex // one line at a time, so that seq follows the order in the file
	seq     int64
	run     string
	service string
	file    *criFile
	counts  *Counts
	ledger  *ledger
	trouble *slog.Logger
}

// log writes one line; kv are key, value pairs as in slog.
func (l *logger) log(ctx context.Context, level, msg string, kv ...any) {
	fields := map[string]any{"level": level, "msg": msg, "run": l.run, "service": l.service}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		fields["trace_id"] = sc.TraceID().String()
		fields["span_id"] = sc.SpanID().String()
	}
	for i := 0; i+1 < len(kv); i += 2 {
		fields[fmt.Sprint(kv[i])] = kv[i+1]
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	fields["seq"] = l.seq + 1
	line, err := json.Marshal(fields)
	if err != nil {
		l.trouble.Error("encode log line", "error", err)
		return
	}
	at, err := l.file.write(line)
	if err != nil {
		l.trouble.Error("a log line is lost before the pipeline got it", "error", err)
		return
	}
	l.seq++
	l.counts.Logs.Made.Add(1)
	l.counts.Logs.Accepted.Add(1)
	l.ledger.add(Entry{Kind: KindLog, Service: l.service, Seq: l.seq, UnixNano: at.UnixNano(), Sum: LineSum(line)})
}
