package containerlogsreceiver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/receiverhelper"
)

// timing are the waits and bounds no user has a reason to set; tests lower them.
type timing struct {
	// saveGap is the least time between two writes of the position file.
	saveGap time.Duration
	// partialIdle is how long the rest of an unfinished record may take.
	partialIdle time.Duration
	// drainGrace is how long a file that left its path must stay at its end
	// before it is closed: its writer may not have reopened yet.
	drainGrace time.Duration
	// scanWait is how long a log waits at most for a directory whose names keep
	// moving.
	scanWait time.Duration
	// shutdownGrace bounds how long Shutdown waits for calls in flight.
	shutdownGrace time.Duration
	// maxDeleted bounds the unread bytes of deleted files held open.
	maxDeleted int64
	// limitedGap is the least time between two records that tell of lines of one
	// container left out, and limitedQuiet how long none must be left out to say
	// that it is over.
	limitedGap, limitedQuiet time.Duration
	// lastNotices bounds how long telling of lines left out may delay a stop.
	lastNotices time.Duration
	// retryInitial and retryMax bound the wait between two attempts.
	retryInitial, retryMax time.Duration
}

func defaultTiming() timing {
	return timing{
		saveGap:       time.Second,
		partialIdle:   5 * time.Second,
		drainGrace:    5 * time.Second,
		scanWait:      5 * time.Second,
		shutdownGrace: 10 * time.Second,
		maxDeleted:    maxDeletedBytes,
		limitedGap:    10 * time.Second,
		limitedQuiet:  time.Second,
		lastNotices:   time.Second,
		retryInitial:  200 * time.Millisecond,
		retryMax:      10 * time.Second,
	}
}

// containerLogs is the receiver: it owns the reader, the workers and the saver.
type containerLogs struct {
	config    *Config
	settings  receiver.Settings
	next      consumer.Logs
	telemetry *telemetry
	obsreport *receiverhelper.ObsReport
	timing    timing
	readDir   func(directory string) ([]os.DirEntry, error) // nil but in tests: os.ReadDir

	lock *os.File           // of the position file
	stop context.CancelFunc // no more reading, no more attempts
	kill context.CancelFunc // ends calls in flight
	done chan struct{}      // closed when everything has ended
}

func newReceiver(set receiver.Settings, cfg *Config, next consumer.Logs) (*containerLogs, error) {
	t, err := newTelemetry(set.MeterProvider)
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	obsreport, err := receiverhelper.NewObsReport(receiverhelper.ObsReportSettings{
		ReceiverID: set.ID, Transport: "file", ReceiverCreateSettings: set,
	})
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	return &containerLogs{
		config: cfg, settings: set, next: next, telemetry: t, obsreport: obsreport, timing: defaultTiming(),
	}, nil
}

// Start loads the positions and begins to read.
func (c *containerLogs) Start(context.Context, component.Host) error {
	lock, err := lockPositionFile(c.config.PositionFile)
	if err != nil {
		return err
	}
	table, first, err := loadPositions(c.config.PositionFile)
	if errors.Is(err, errCorruptPositions) {
		c.settings.Logger.Error("reading all container logs from their beginning: lines may arrive twice, none is skipped: " + err.Error())
	} else if err != nil {
		return errors.Join(err, lock.Close())
	}
	// Written before anything is read: a start that cannot save must say so,
	// and what this start found counts as found even if it is killed at once.
	d := newDelivery(int(c.config.Batch.MaxBytes))
	d.next, d.positions, d.telemetry, d.obsreport = c.next, table, c.telemetry, c.obsreport
	d.logger, d.timing, d.version = c.settings.Logger, c.timing, c.settings.BuildInfo.Version
	r := newReader(c.config, c.timing, c.settings.Logger, c.telemetry, d)
	if c.readDir != nil {
		r.readDir = c.readDir
	}
	r.startWatching()
	r.discover(first)
	if err := table.save(); err != nil {
		r.closeAll()
		return errors.Join(err, lock.Close())
	}
	c.lock = lock
	c.run(r, d)
	return nil
}

// run starts the goroutines; done is closed when all of them have ended.
func (c *containerLogs) run(r *reader, d *delivery) {
	var stop, kill context.Context
	kill, c.kill = context.WithCancel(context.Background())
	stop, c.stop = context.WithCancel(kill)
	c.done = make(chan struct{})
	var workers sync.WaitGroup
	for range maxInFlight {
		workers.Go(func() { d.work(stop, kill) })
	}
	delivered := make(chan struct{})
	var saver sync.WaitGroup
	saver.Go(func() { d.save(delivered) })
	go func() {
		defer close(c.done)
		r.run(stop)
		r.announceLast(kill)
		close(d.jobs)
		workers.Wait()
		close(delivered)
		saver.Wait()
	}()
}

// Shutdown stops reading, lets the calls in flight end, and saves the positions.
// What was read but not accepted is read again at the next start.
func (c *containerLogs) Shutdown(ctx context.Context) error {
	if c.done == nil {
		return nil
	}
	c.stop()
	select {
	case <-c.done:
	case <-ctx.Done():
	case <-time.After(c.timing.shutdownGrace):
	}
	c.kill()
	<-c.done
	c.done = nil
	if err := c.lock.Close(); err != nil {
		return fmt.Errorf("release position file: %w", err)
	}
	return nil
}
