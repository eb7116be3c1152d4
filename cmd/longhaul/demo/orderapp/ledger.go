package orderapp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// Kind says what an Entry of the ledger is.
type Kind string

// The kinds of ledger entries.
const (
	KindLog   Kind = "log"
	KindPoint Kind = "point"
	KindSpan  Kind = "span"
)

// Entry is one item that was accepted, with all that is needed to recognise
// it at the far end. Only the fields of its kind are set.
type Entry struct {
	Kind    Kind   `json:"k"`
	Service string `json:"svc"`

	// log: its number within the service, time and checksum (CRC-32C) of the line
	Seq      int64  `json:"seq,omitempty"`
	UnixNano int64  `json:"ns,omitempty"`
	Sum      uint32 `json:"sum,omitempty"`

	// span
	TraceID string `json:"trace,omitempty"`
	SpanID  string `json:"span,omitempty"`

	// point
	Point *Point `json:"point,omitempty"`
}

// Point is a metric data point in OpenTelemetry's terms.
type Point struct {
	Name      string            `json:"name"`
	Unit      string            `json:"unit,omitempty"`
	Type      PointType         `json:"type"`
	Attrs     map[string]string `json:"attrs,omitempty"`
	UnixMilli int64             `json:"ms"`
	Value     float64           `json:"value"`             // of a gauge or sum; the sum of a histogram
	Count     uint64            `json:"count,omitempty"`   // histograms
	Bounds    []float64         `json:"bounds,omitempty"`  // explicit histograms
	Buckets   []uint64          `json:"buckets,omitempty"` // explicit histograms, not cumulative
}

// PointType is the kind of metric a Point belongs to.
type PointType string

// The types of points.
const (
	Gauge         PointType = "gauge"
	UpDownCounter PointType = "updowncounter"
	Counter       PointType = "counter"
	Histogram     PointType = "histogram"
	ExpHistogram  PointType = "exphistogram"
)

// ledger appends entries to a file, one JSON object a line. The zero file
// (no path) swallows them.
type ledger struct {
	mu  sync.Mutex
	f   *os.File
	w   *bufio.Writer
	err error
}

func openLedger(path string) (*ledger, error) {
	if path == "" {
		return &ledger{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	return &ledger{f: f, w: bufio.NewWriter(f)}, nil
}

func (l *ledger) add(entries ...Entry) {
	if l.f == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range entries {
		b, err := json.Marshal(&entries[i])
		if err == nil {
			_, err = l.w.Write(append(b, '\n'))
		}
		l.err = errors.Join(l.err, err)
	}
}

// flush makes everything added so far readable and returns the first trouble.
func (l *ledger) flush() error {
	if l.f == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = errors.Join(l.err, l.w.Flush())
	return l.err
}

func (l *ledger) Close() error {
	if l.f == nil {
		return nil
	}
	return errors.Join(l.flush(), l.f.Close())
}

// ReadLedger calls fn with every entry of a ledger.
func ReadLedger(path string, fn func(Entry) error) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open ledger: %w", err)
	}
	defer discard(f)
	dec := json.NewDecoder(bufio.NewReaderSize(f, 1<<20))
	for {
		var e Entry
		switch err := dec.Decode(&e); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read ledger %s: %w", path, err)
		}
		if err := fn(e); err != nil {
			return err
		}
	}
}
