// Package sink takes what a relay or a gateway sends to Loki, Prometheus and
// Jaeger, reads every request to its last item, and reports the items and the
// markers (package frames) in it before it answers. It stores nothing. With a
// real backend behind it, a request counts once that backend has accepted it.
//
// One address takes Loki's push and OTLP logs, remote write 2.0 and 1.0; another
// takes OTLP traces by gRPC.
package sink

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

// maxRequest bounds a request before and after it is unpacked.
const maxRequest = 64 << 20

// Batch is what one request held.
type Batch struct {
	Signal frame.Signal
	// Items are log entries, samples or spans out of frames; Foreign are samples
	// that were in none: the relay's own, and target_info.
	Items, Foreign int
	Sightings      []Sighting
	// At is when the request had been read.
	At time.Time
	// Bytes of the request as it came.
	Bytes int
}

// Sighting is a marker with the cluster that the data says it is from.
type Sighting struct {
	frames.Marker
	Cluster string
}

// Options of a Sink.
type Options struct {
	// Taken is called for every request that is accepted, before the answer. It must
	// be safe for concurrent use.
	Taken func(Batch)
	// Loki, Prometheus and Jaeger are the real backends to hand requests on to; empty
	// where there is none. The first two are http://host:port, the last is host:port.
	Loki, Prometheus, Jaeger string
}

// Sink is the servers. Make it with New, end it with Close.
type Sink struct {
	URL  string // http://127.0.0.1:port, of Loki and Prometheus
	GRPC string // 127.0.0.1:port, of Jaeger

	options  Options
	away     atomic.Bool
	refused  atomic.Int64
	trouble  atomic.Pointer[error]
	server   http.Server
	grpc     *grpc.Server
	jaeger   *grpc.ClientConn
	serving  sync.WaitGroup
	buffers  sync.Pool // of *buffers
	unzstd   *zstd.Decoder
	backends http.Client
}

type buffers struct {
	packed  bytes.Buffer
	plain   []byte
	symbols [][]byte
}

// New starts a sink on free ports of the loopback.
func New(o Options) (*Sink, error) {
	s := &Sink{options: o}
	s.buffers.New = func() any { return new(buffers) }
	s.backends.Transport = &http.Transport{MaxIdleConnsPerHost: 64}
	var err error
	if s.unzstd, err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxRequest)); err != nil {
		return nil, err
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	rpc, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, web.Close())
	}
	s.URL, s.GRPC = "http://"+web.Addr().String(), rpc.Addr().String()
	if err := s.prepareGRPC(); err != nil {
		return nil, errors.Join(err, web.Close(), rpc.Close())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /loki/api/v1/push", s.handler(o.Loki, s.loki))
	mux.HandleFunc("POST /otlp/v1/logs", s.handler(o.Loki, s.otlpLogs))
	mux.HandleFunc("POST /api/v1/write", s.handler(o.Prometheus, s.write))
	mux.HandleFunc("GET /config", s.settings(o.Loki, lokiSettings))
	mux.HandleFunc("GET /runtime_config", s.settings(o.Loki, "overrides: {}\n"))
	mux.HandleFunc("GET /api/v1/status/config", s.settings(o.Prometheus, prometheusSettings))
	s.server.Handler = mux
	s.serving.Go(func() { _ = s.server.Serve(web) }) // both end when they are told to
	s.serving.Go(func() { _ = s.grpc.Serve(rpc) })
	return s, nil
}

// SetAway lets every request be refused with 503 (Unavailable), or ends that.
func (s *Sink) SetAway(away bool) { s.away.Store(away) }

// Refused is how many requests were refused while the sink was away.
func (s *Sink) Refused() int64 { return s.refused.Load() }

// Trouble is the first request that could not be read, which is somebody's mistake.
func (s *Sink) Trouble() error {
	if err := s.trouble.Load(); err != nil {
		return *err
	}
	return nil
}

// Close ends the servers.
func (s *Sink) Close() error {
	err := s.server.Close()
	s.grpc.Stop()
	s.serving.Wait()
	if s.jaeger != nil {
		err = errors.Join(err, s.jaeger.Close())
	}
	s.backends.CloseIdleConnections()
	s.unzstd.Close()
	return err
}

// answer is what a request is answered with, when it was understood.
type answer struct {
	header http.Header
	body   []byte
	status int
}

type taker func(r *http.Request, b *buffers) (Batch, answer, error)

func (s *Sink) handler(backend string, take taker) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b := s.buffers.Get().(*buffers)
		defer s.buffers.Put(b)
		b.packed.Reset()
		if _, err := b.packed.ReadFrom(http.MaxBytesReader(w, r.Body, maxRequest)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if s.away.Load() {
			s.refused.Add(1)
			http.Error(w, "the backend is away", http.StatusServiceUnavailable)
			return
		}
		batch, answer, err := take(r, b)
		if err != nil {
			s.complain(fmt.Errorf("%s: %w", r.URL.Path, err))
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if backend != "" {
			if answer, err = s.handOn(backend, r, b.packed.Bytes()); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		if answer.status/100 == 2 {
			batch.At, batch.Bytes = time.Now(), b.packed.Len()
			s.options.Taken(batch)
		}
		answer.write(w)
	}
}

// What a relay may ask a backend for at its start: settings as they are recommended.
const (
	lokiSettings = `ingester: {max_chunk_age: 2h0m0s}
limits_config:
  reject_old_samples: true
  reject_old_samples_max_age: 1w
  creation_grace_period: 10m
  per_stream_rate_limit: 3MB
  per_stream_rate_limit_burst: 15MB
  shard_streams: {time_sharding_enabled: true, time_sharding_ignore_recent: 40m0s}
`
	prometheusSettings = `{"status":"success","data":{"yaml":"storage:\n  tsdb:\n    out_of_order_time_window: 72h\n"}}`
)

func (s *Sink) settings(backend, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a := answer{body: []byte(text), status: http.StatusOK}
		if backend != "" {
			var err error
			if a, err = s.handOn(backend, r, nil); err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
		}
		a.write(w)
	}
}

func (a *answer) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // a client that has gone asks again
}

func (s *Sink) complain(err error) { s.trouble.CompareAndSwap(nil, &err) }

// handOn sends a request to a real backend as it came.
func (s *Sink) handOn(backend string, r *http.Request, body []byte) (answer, error) {
	onward, err := http.NewRequestWithContext(r.Context(), r.Method, backend+r.URL.Path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	onward.Header = r.Header.Clone()
	response, err := s.backends.Do(onward)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxRequest))
	return answer{response.Header, text, response.StatusCode}, err
}

func (s *Sink) loki(_ *http.Request, b *buffers) (batch Batch, a answer, err error) {
	if b.plain, err = unsnap(b.plain, b.packed.Bytes()); err != nil {
		return batch, a, err
	}
	batch, err = takeLoki(b.plain)
	return batch, answer{status: http.StatusNoContent}, err
}

func (s *Sink) write(r *http.Request, b *buffers) (batch Batch, a answer, err error) {
	if b.plain, err = unsnap(b.plain, b.packed.Bytes()); err != nil {
		return batch, a, err
	}
	a = answer{status: http.StatusNoContent, header: http.Header{}}
	if r.Header.Get("Content-Type") != "application/x-protobuf;proto=io.prometheus.write.v2.Request" {
		batch, err = takeWrite1(b.plain)
		return batch, a, err
	}
	var w written
	if batch, w, b.symbols, err = takeWrite2(b.plain, b.symbols); err != nil {
		return batch, a, err
	}
	a.header.Set("X-Prometheus-Remote-Write-Samples-Written", strconv.Itoa(w.samples))
	a.header.Set("X-Prometheus-Remote-Write-Histograms-Written", strconv.Itoa(w.histograms))
	a.header.Set("X-Prometheus-Remote-Write-Exemplars-Written", strconv.Itoa(w.exemplars))
	return batch, a, nil
}

func (s *Sink) otlpLogs(r *http.Request, b *buffers) (batch Batch, a answer, err error) {
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "":
		b.plain = append(b.plain[:0], b.packed.Bytes()...)
	case "zstd":
		b.plain, err = s.unzstd.DecodeAll(b.packed.Bytes(), b.plain[:0])
	case "snappy":
		b.plain, err = unsnap(b.plain, b.packed.Bytes())
	case "gzip":
		b.plain, err = gunzip(b.packed.Bytes())
	default:
		err = fmt.Errorf("content encoding %q is not known", encoding)
	}
	if err != nil {
		return batch, a, err
	}
	batch, err = takeOTLPLogs(b.plain)
	return batch, answer{status: http.StatusOK, header: http.Header{"Content-Type": {"application/x-protobuf"}}}, err
}

func unsnap(dst, packed []byte) ([]byte, error) {
	n, err := snappy.DecodedLen(packed)
	if err != nil || n > maxRequest {
		return dst, fmt.Errorf("%w: snappy of %d bytes: %v", errWire, n, err)
	}
	if cap(dst) < n {
		dst = make([]byte, n)
	}
	return snappy.Decode(dst[:cap(dst)], packed)
}

func gunzip(packed []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(r, maxRequest))
}
