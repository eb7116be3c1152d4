package hubextension

import (
	"fmt"
	"sync/atomic"

	"go.uber.org/zap"
)

// serverLogger writes the server's lines to the collector's log, and hands on
// what the server calls fatal: the library goes on after such a line, half
// started, and expects its host to end it.
type serverLogger struct {
	log     *zap.Logger
	fatal   chan error // of the start; capacity 1: the first one counts
	running atomic.Bool
}

func newServerLogger(log *zap.Logger) *serverLogger {
	return &serverLogger{log: log, fatal: make(chan error, 1)}
}

// Noticef carries a page of banner lines at every start, hence debug.
func (l *serverLogger) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Debugf(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }
func (l *serverLogger) Tracef(format string, v ...any)  { l.log.Debug(fmt.Sprintf(format, v...)) }

// Fatalf after the start has nobody waiting for it: it is logged.
func (l *serverLogger) Fatalf(format string, v ...any) {
	if l.running.Load() {
		l.log.Error(fmt.Sprintf(format, v...))
		return
	}
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default:
	}
}
