package lab

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main is the main function of a program that measures: it reads the flags, runs
// until done or interrupted, and ends the process with 1 where that failed.
func Main[options any](name string, parse func(args []string) (options, error), run func(context.Context, options) error) {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, o)
		stop()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Progress returns a function that tells whoever waits for a program what is going
// on, on standard error, with the seconds since Progress was called.
func Progress(name string) func(format string, args ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%s %4.0fs  %s\n", name, time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

// Pause waits, or returns why not.
func Pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
