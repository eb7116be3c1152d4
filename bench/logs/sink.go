package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"
)

// sink takes OTLP/HTTP logs compressed with zstd and counts the records.
type sink struct {
	addr    string // 127.0.0.1:port
	server  http.Server
	done    chan struct{}
	records atomic.Int64
	buffers sync.Pool // of *[]byte
	zstd    *zstd.Decoder
}

func newSink() (*sink, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		return nil, err
	}
	s := &sink{addr: listener.Addr().String(), done: make(chan struct{}), zstd: decoder}
	s.buffers.New = func() any { return new([]byte) }
	s.server.Handler = s
	go func() {
		defer close(s.done)
		_ = s.server.Serve(listener) // ends with ErrServerClosed
	}()
	return s, nil
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.take(r); err != nil {
		say("the sink refuses a request of the peer: %v", err)
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	answer, _ := plogotlp.NewExportResponse().MarshalProto() // of an empty message
	_, _ = w.Write(answer)
}

func (s *sink) take(r *http.Request) error {
	if got := r.Header.Get("Content-Encoding"); got != "zstd" {
		return fmt.Errorf("content encoding %q instead of zstd", got)
	}
	packed, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	buffer := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buffer)
	if *buffer, err = s.zstd.DecodeAll(packed, (*buffer)[:0]); err != nil {
		return err
	}
	request := plogotlp.NewExportRequest()
	if err := request.UnmarshalProto(*buffer); err != nil {
		return err
	}
	s.records.Add(int64(request.Logs().LogRecordCount()))
	return nil
}

func (s *sink) close() error {
	err := s.server.Shutdown(context.Background())
	<-s.done
	s.zstd.Close()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
