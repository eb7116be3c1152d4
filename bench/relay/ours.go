package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/longhaul/longhaul/internal/frame"
	"github.com/longhaul/longhaul/internal/hub"
	"github.com/longhaul/longhaul/internal/lab"
	"github.com/longhaul/longhaul/test/fleet/frames"
)

const (
	// publishesAtOnce bounds what the hub has not acknowledged.
	publishesAtOnce = 1024
	// startTime is what a relay that finds nothing to do is watched for.
	startTime = 5 * time.Second
	// profileTime is how much of a drain is profiled.
	profileTime = 15 * time.Second
)

const profileOverlay = `extensions:
  pprof:
    endpoint: 127.0.0.1:%d
service:
  extensions: [health_check, pprof]
`

// ours lets a hub be filled and longhaul-relay drain it, for each signal.
func (w *world) ours(ctx context.Context) (turn, error) {
	t := make(turn)
	for _, signal := range frame.Signals {
		if *w.frames[signal] == 0 {
			continue
		}
		f, err := w.drain(ctx, signal)
		if err != nil {
			return t, fmt.Errorf("longhaul-relay, %s: %w", signal, err)
		}
		t[signal] = f
	}
	return t, nil
}

func (w *world) drain(ctx context.Context, signal frame.Signal) (f *figures, err error) {
	s, err := w.newScene(signal)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.sink.Close()) }()
	dir := filepath.Join(w.dir, "ours", signal.String())
	nats, err := lab.NewNATS(lab.NATSOptions{Binary: filepath.Join(w.bin, "nats-server"), Dir: filepath.Join(dir, "hub")})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, nats.Stop()) }()
	if err := nats.Start(ctx); err != nil {
		return nil, err
	}
	port, err := lab.FreePort()
	if err != nil {
		return nil, err
	}
	relay, err := s.newRelay(nats, dir, port)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, relay.Stop()) }()
	base, err := s.prepare(ctx, nats, relay)
	if err != nil {
		return nil, err
	}
	say("filling the hub with %d frames of %s", *w.frames[signal], signal)
	if err := s.fill(ctx, nats.URL); err != nil {
		return nil, fmt.Errorf("fill the hub: %w", err)
	}
	hubBefore, err := lab.UsageOf(nats.PID())
	if err != nil {
		return nil, err
	}
	f, err = s.measure(ctx, relay.Process, base, func(ctx context.Context) error {
		if err := relay.Start(ctx); err != nil {
			return err
		}
		if w.profile != "" {
			return saveProfile(ctx, port, w.profile+"-"+signal.String()+".pprof")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	hubAfter, err := lab.UsageOf(nats.PID())
	f.hubCPU = hubAfter.CPU - hubBefore.CPU
	return f, err
}

func (s *scene) newRelay(nats *lab.NATS, dir string, profilePort int) (*lab.Relay, error) {
	overlay := s.overlay
	if s.profile != "" {
		overlay = filepath.Join(dir, "profile.yaml")
		if err := os.WriteFile(overlay, fmt.Appendf(nil, profileOverlay, profilePort), 0o644); err != nil {
			return nil, err
		}
	}
	return lab.NewRelay(lab.RelayOptions{
		Binary: filepath.Join(s.bin, "longhaul-relay"), Dir: dir, Overlay: overlay,
		LokiURL: s.sink.URL, PrometheusURL: s.sink.URL, JaegerOTLP: s.sink.GRPC,
		Env: map[string]string{"LONGHAUL_NATS_URL": nats.URL},
	})
}

// prepare lets a relay make its streams, and returns what a relay without anything
// to deliver takes to start.
func (s *scene) prepare(ctx context.Context, nats *lab.NATS, relay *lab.Relay) (time.Duration, error) {
	if err := relay.Start(ctx); err != nil {
		return 0, err
	}
	if err := lab.Pause(ctx, startTime); err != nil {
		return 0, err
	}
	u, err := lab.UsageOf(relay.PID())
	if err != nil {
		return 0, err
	}
	nc, js, err := connect(nats.URL)
	if err != nil {
		return 0, err
	}
	defer nc.Close()
	stream, err := js.Stream(ctx, hub.StreamName(s.signal))
	if err != nil {
		return 0, fmt.Errorf("%v after its start longhaul-relay has made no stream: %w", startTime, err)
	}
	if stream.CachedInfo().State.Consumers == 0 {
		return 0, fmt.Errorf("%v after its start longhaul-relay has made no consumer", startTime)
	}
	return u.CPU, relay.Stop()
}

func connect(url string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect(url)
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(2*publishesAtOnce))
	if err != nil {
		nc.Close()
	}
	return nc, js, err
}

// fill publishes all frames and waits for the hub to have them.
func (s *scene) fill(ctx context.Context, url string) error {
	nc, js, err := connect(url)
	if err != nil {
		return err
	}
	defer nc.Close()
	var scratch []byte
	var waiting []jetstream.PubAckFuture
	await := func(left int) error {
		for ; len(waiting) > left; waiting = waiting[1:] {
			select {
			case <-waiting[0].Ok():
			case err := <-waiting[0].Err():
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	err = s.each(func(node int, t *frames.Template, n *frames.Numbers) error {
		var raw []byte
		raw, scratch = t.AppendFrame(nil, scratch, n)
		future, err := js.PublishMsgAsync(&nats.Msg{
			Subject: hub.FrameSubject(s.signal, originOf(node)),
			Header:  nats.Header{jetstream.MsgIDHeader: []string{fmt.Sprintf("%s/%s/1/%d", n.Epoch, s.signal, n.Number)}},
			Data:    raw,
		})
		if err != nil {
			return err
		}
		waiting = append(waiting, future)
		return await(publishesAtOnce - 1)
	})
	if err != nil {
		return err
	}
	return await(0)
}

func saveProfile(ctx context.Context, port int, path string) error {
	url := fmt.Sprintf("http://127.0.0.1:%d/debug/pprof/profile?seconds=%d", port, int(profileTime.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}
