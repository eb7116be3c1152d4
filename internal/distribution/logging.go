package distribution

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// startFailures are logged upstream with the very error that also ends the
// program, which Main prints: once is enough.
var startFailures = map[string]bool{
	"Failed to start component":                 true,
	"Failed to start extension":                 true,
	"error found during service initialization": true,
}

func logOnce() zap.Option {
	return zap.WrapCore(func(core zapcore.Core) zapcore.Core { return onceCore{core} })
}

type onceCore struct{ zapcore.Core }

func (c onceCore) With(fields []zapcore.Field) zapcore.Core { return onceCore{c.Core.With(fields)} }

func (c onceCore) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if startFailures[entry.Message] {
		return checked
	}
	return c.Core.Check(entry, checked)
}
