package hubextension

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.opentelemetry.io/collector/component"
	"go.uber.org/zap"
)

const (
	// startTimeout covers the recovery of a large store after a power cut.
	startTimeout = 5 * time.Minute
	readyPoll    = 20 * time.Millisecond
)

var errNotRunning = errors.New("the embedded hub is not running")

// hub is the extension: one NATS server.
type hub struct {
	config *Config
	log    *zap.Logger
	// server is nil before Start and after Shutdown; clients of this process may
	// reconnect while the extension stops.
	server atomic.Pointer[server.Server]
	lock   *os.File
}

func newHub(config *Config, log *zap.Logger) *hub {
	return &hub{config: config, log: log}
}

// Start returns when clients can connect.
func (h *hub) Start(ctx context.Context, _ component.Host) error {
	if err := h.start(ctx); err != nil {
		return fmt.Errorf("hub: %w", err)
	}
	return nil
}

func (h *hub) start(ctx context.Context) error {
	options, err := h.config.serverOptions()
	if err != nil {
		return err
	}
	if h.lock, err = lockStore(h.config.StoreDir); err != nil {
		return err
	}
	if err := h.run(ctx, options); err != nil {
		return errors.Join(err, h.stop())
	}
	h.log.Info("the hub is ready",
		zap.String("listen", h.server.Load().Addr().String()),
		zap.Bool("tls", options.TLSConfig != nil),
		zap.String("websocket", h.config.Websocket.Listen),
		zap.String("store_dir", h.config.StoreDir),
		zap.Stringer("max_bytes", h.config.MaxBytes))
	return nil
}

func (h *hub) run(ctx context.Context, options *server.Options) error {
	started, err := server.NewServer(options)
	if err != nil {
		return fmt.Errorf("set up the NATS server: %w", err)
	}
	h.server.Store(started)
	logger := newServerLogger(h.log)
	// Debug lines are made only when someone reads them.
	started.SetLoggerV2(logger, h.log.Core().Enabled(zap.DebugLevel), false, false)
	started.Start()

	deadline := time.NewTimer(startTimeout)
	defer deadline.Stop()
	for {
		select {
		case err := <-logger.fatal:
			return fmt.Errorf("start the NATS server: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("start the NATS server: %w", context.Cause(ctx))
		case <-deadline.C:
			return fmt.Errorf("the NATS server was not ready after %s", startTimeout)
		default:
		}
		if started.ReadyForConnections(readyPoll) && started.JetStreamEnabled() {
			// The listener may be up while a later part gave up.
			logger.running.Store(true)
			select {
			case err := <-logger.fatal:
				return fmt.Errorf("start the NATS server: %w", err)
			default:
				return nil
			}
		}
	}
}

// Shutdown ends the server after its last write.
func (h *hub) Shutdown(context.Context) error { return h.stop() }

func (h *hub) stop() error {
	if running := h.server.Swap(nil); running != nil {
		running.Shutdown()
		running.WaitForShutdown()
	}
	if h.lock != nil {
		err := h.lock.Close()
		h.lock = nil
		return err
	}
	return nil
}

// InProcessConn connects a client of this process without a socket. It
// satisfies nats.InProcessConnProvider.
func (h *hub) InProcessConn() (net.Conn, error) {
	running := h.server.Load()
	if running == nil {
		return nil, errNotRunning
	}
	return running.InProcessConn()
}
