package prometheusexporter

import (
	"encoding/binary"
	"hash/maphash"
	"math"

	"github.com/prometheus/prometheus/model/exemplar"
	writev2 "github.com/prometheus/prometheus/prompb/io/prometheus/write/v2"
)

// counts is what a batch carries.
type counts struct{ samples, exemplars int }

// batch is what one request carries: runs of samples of series, each in order
// of time.
type batch struct {
	runs    []run
	symbols []string // see sizer
	strings []string // of the call, by symbol
	counts
}

// run is a part of a series.
type run struct {
	*series
	head
	floats     []floatSample
	histograms []histogramSample
	exemplars  []exemplar.Exemplar
}

func (b *batch) add(r run) {
	b.runs = append(b.runs, r)
	b.samples += len(r.floats) + len(r.histograms)
	b.exemplars += len(r.exemplars)
}

// Upper bounds of what things take in a request, in either protocol.
const (
	sampleBytes  = 32 // three numbers, tags and lengths
	seriesBytes  = 24 // tags, lengths, metadata references
	labelBytes   = 12 // per label: tags, lengths or references
	symbolBytes  = 6  // per new symbol: tag and length
	exemplarSize = 32 // without its labels
)

// plan packs series into batches of at most maxBytes, in order. A series that
// does not fit is continued in the next batch. memory is what the runs are kept
// in as long as it suffices; nil if there is none.
func plan(all []*series, strings []string, maxBytes int, size sizer, memory []run) []*batch {
	var batches []*batch
	open := &batch{runs: memory, strings: strings}
	bytes := 0
	for _, s := range all {
		rest := run{series: s, floats: s.floats, histograms: s.histograms, exemplars: s.exemplars}
		for len(rest.floats)+len(rest.histograms) > 0 {
			rest.head = size.series(s)
			part, partBytes := rest.take(maxBytes - bytes - rest.bytes)
			if len(part.floats)+len(part.histograms) == 0 {
				if len(open.runs) > 0 {
					size.undo()
					open.symbols = size.next()
					batches = append(batches, open)
					open, bytes = &batch{runs: open.runs[len(open.runs):], strings: strings}, 0
					continue
				}
				part, partBytes = rest.takeOne() // larger than a request: alone
			}
			open.add(part)
			bytes += rest.bytes + partBytes
		}
	}
	if len(open.runs) > 0 {
		open.symbols = size.next()
		batches = append(batches, open)
	}
	return batches
}

// enough makes memory for the runs of n series, and a few that are continued.
func enough(memory []run, n int) []run {
	if more := n + n/8 + 8; cap(memory) < more {
		return make([]run, 0, more)
	}
	return memory[:0]
}

// take moves samples from r as long as they fit into room bytes. The exemplars
// go with the last samples of the series, after which they were observed.
func (r *run) take(room int) (run, int) {
	part, bytes := run{series: r.series, head: r.head}, 0
	for n := range r.exemplars {
		bytes += exemplarBytes(r.exemplars[n])
	}
	for len(r.floats) > 0 && bytes+sampleBytes <= room {
		n := min(len(r.floats), (room-bytes)/sampleBytes)
		part.floats, r.floats = r.floats[:n], r.floats[n:]
		bytes += n * sampleBytes
		break
	}
	for len(r.floats) == 0 && len(r.histograms) > 0 {
		size := histogramBytes(r.histograms[0])
		if bytes+size > room {
			break
		}
		part.histograms = append(part.histograms, r.histograms[0])
		r.histograms = r.histograms[1:]
		bytes += size
	}
	r.finish(&part)
	return part, bytes
}

func (r *run) takeOne() (run, int) {
	part := run{series: r.series, head: r.head}
	bytes := sampleBytes
	if len(r.floats) > 0 {
		part.floats, r.floats = r.floats[:1], r.floats[1:]
	} else {
		bytes = histogramBytes(r.histograms[0])
		part.histograms, r.histograms = r.histograms[:1], r.histograms[1:]
	}
	r.finish(&part)
	return part, bytes
}

func (r *run) finish(part *run) {
	if len(r.floats)+len(r.histograms) == 0 {
		part.exemplars, r.exemplars = r.exemplars, nil
	}
}

func histogramBytes(h histogramSample) int {
	encoded := writev2.FromIntHistogram(h.at, h.value)
	return encoded.Size() + sampleBytes
}

func exemplarBytes(e exemplar.Exemplar) int {
	n := exemplarSize
	e.Labels.Range(func(l labelPair) { n += len(l.Name) + len(l.Value) + labelBytes + 2*symbolBytes })
	return n
}

// halves splits a batch that a server finds too large or refuses whole.
func (b *batch) halves() (first, second *batch) {
	first, second = &batch{symbols: b.symbols, strings: b.strings}, &batch{symbols: b.symbols, strings: b.strings}
	half := b.samples / 2
	for _, r := range b.runs {
		n := min(max(half-first.samples, 0), len(r.floats)+len(r.histograms))
		f := min(n, len(r.floats))
		h := n - f
		if n > 0 {
			part := run{series: r.series, head: r.head, floats: r.floats[:f], histograms: r.histograms[:h]}
			r.floats, r.histograms = r.floats[f:], r.histograms[h:]
			(&r).finish(&part)
			first.add(part)
		}
		if len(r.floats)+len(r.histograms) > 0 {
			second.add(r)
		}
	}
	return first, second
}

// hash knows a batch by its tenant and content, for the life of the process.
func (b *batch) hash(tenant string) uint64 {
	var (
		h      maphash.Hash
		number [8]byte
	)
	h.SetSeed(batchSeed)
	_, _ = h.WriteString(tenant)
	add := func(n uint64) {
		binary.LittleEndian.PutUint64(number[:], n)
		_, _ = h.Write(number[:])
	}
	for _, r := range b.runs {
		add(contentOf(r.labels, b.strings))
		add(uint64(len(r.floats)))
		for _, f := range r.floats {
			add(uint64(f.at))
			add(math.Float64bits(f.value))
		}
		add(uint64(len(r.histograms)))
		for _, s := range r.histograms {
			add(uint64(s.at))
			add(s.value.Count)
			add(math.Float64bits(s.value.Sum))
		}
	}
	return h.Sum64()
}

var batchSeed = maphash.MakeSeed()
