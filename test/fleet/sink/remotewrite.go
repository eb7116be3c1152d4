package sink

import (
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const (
	nameLabel    = "__name__"
	clusterLabel = "cluster"
	jobLabel     = "job"
	// foreignJob is the relay's own telemetry, foreignName what an exporter adds for
	// each resource: neither is in a frame.
	foreignJob  = "longhaul-relay"
	foreignName = "target_info"
)

// written is what a server of remote write 2.0 answers with.
type written struct{ samples, histograms, exemplars int }

// seriesLabels are those that matter here. They alias the request.
type seriesLabels struct{ name, job, cluster, lane []byte }

func (l *seriesLabels) foreign() bool {
	return string(l.job) == foreignJob || string(l.name) == foreignName
}

func (l *seriesLabels) set(name, value []byte) {
	switch string(name) {
	case nameLabel:
		l.name = value
	case jobLabel:
		l.job = value
	case clusterLabel:
		l.cluster = value
	case frames.MarkerLabel:
		l.lane = value
	}
}

// takeWrite2 reads a request of remote write 2.0. scratch is used for its symbols
// and returned.
func takeWrite2(message []byte, scratch [][]byte) (b Batch, w written, symbols [][]byte, err error) {
	b.Signal = frame.Metrics
	symbols = scratch[:0]
	if err := only(message, 4, func(symbol []byte) error {
		symbols = append(symbols, symbol)
		return nil
	}); err != nil {
		return b, w, symbols, err
	}
	err = only(message, 5, func(series []byte) error { return takeSeries2(series, symbols, &b, &w) })
	return b, w, symbols, err
}

func takeSeries2(message []byte, symbols [][]byte, b *Batch, w *written) error {
	var labels seriesLabels
	if err := only(message, 1, func(refs []byte) error { return labels.read2(refs, symbols) }); err != nil {
		return err
	}
	return walk(message, func(f field) error {
		switch {
		case f.isMessage(2):
			w.samples++
			return takeSample(f.bytes, &labels, b)
		case f.isMessage(3):
			w.histograms++
			b.count(&labels)
			return walk(f.bytes, func(field) error { return nil })
		case f.isMessage(4):
			w.exemplars++
		}
		return nil
	})
}

func (l *seriesLabels) read2(refs []byte, symbols [][]byte) error {
	for len(refs) > 0 {
		name, n := protowire.ConsumeVarint(refs)
		if n < 0 {
			return fmt.Errorf("%w: label references", errWire)
		}
		value, m := protowire.ConsumeVarint(refs[n:])
		if m < 0 || name >= uint64(len(symbols)) || value >= uint64(len(symbols)) {
			return fmt.Errorf("%w: label references %d and %d of %d symbols", errWire, name, value, len(symbols))
		}
		refs = refs[n+m:]
		l.set(symbols[name], symbols[value])
	}
	return nil
}

func takeSample(message []byte, labels *seriesLabels, b *Batch) error {
	var value float64
	var at int64
	err := walk(message, func(f field) error {
		switch f.number {
		case 1:
			value = math.Float64frombits(f.value)
		case 2:
			at = int64(f.value)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if at == 0 {
		return fmt.Errorf("%w: a sample without a time", errWire)
	}
	b.count(labels)
	if string(labels.name) != frames.MarkerMetric {
		return nil
	}
	m, err := frames.ParseSample(string(labels.lane), value, at)
	if err != nil {
		return err
	}
	b.Sightings = append(b.Sightings, Sighting{m, string(labels.cluster)})
	return nil
}

func (b *Batch) count(labels *seriesLabels) {
	if labels.foreign() {
		b.Foreign++
	} else {
		b.Items++
	}
}

// takeWrite1 reads a request of remote write 1.0.
func takeWrite1(message []byte) (b Batch, err error) {
	b.Signal = frame.Metrics
	err = walk(message, func(f field) error {
		if f.isMessage(1) {
			return takeSeries1(f.bytes, &b)
		}
		return nil
	})
	return b, err
}

func takeSeries1(message []byte, b *Batch) error {
	var labels seriesLabels
	err := only(message, 1, func(label []byte) error {
		var name, value []byte
		err := walk(label, func(f field) error {
			switch {
			case f.isMessage(1):
				name = f.bytes
			case f.isMessage(2):
				value = f.bytes
			}
			return nil
		})
		labels.set(name, value)
		return err
	})
	if err != nil {
		return err
	}
	return walk(message, func(f field) error {
		switch {
		case f.isMessage(2):
			return takeSample(f.bytes, &labels, b)
		case f.isMessage(4):
			b.count(&labels)
			return walk(f.bytes, func(field) error { return nil })
		}
		return nil
	})
}
