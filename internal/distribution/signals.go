package distribution

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// repeatSignal is short against a start, which takes a tenth of a second.
const repeatSignal = 20 * time.Millisecond

// holdSignals keeps SIGTERM and SIGINT from ending the program in the middle of
// its start: upstream listens for them only when everything has started. A
// signal that comes earlier is sent again until the returned function is called,
// so upstream hears it as soon as it listens and stops in order.
func holdSignals() (release func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case received := <-signals:
				select {
				case <-done:
					return
				case <-time.After(repeatSignal):
					_ = syscall.Kill(os.Getpid(), received.(syscall.Signal))
				}
			}
		}
	}()
	return func() {
		close(done)
		// Not signal.Stop: a repeated signal may still be on its way, and
		// would end the program that has just stopped in order.
	}
}
