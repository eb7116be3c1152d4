package containerlogsreceiver

import "bytes"

// trace says that the last line belongs to a stack trace, and so what the next
// line of its stream may be to belong to it too. Each state is a place in the
// trace of a runtime; the rules are prefixes, so that a line costs nanoseconds.
type trace uint8

const (
	noTrace trace = iota
	// The JVM, .NET and JavaScript: a line that names an exception, or one of
	// its frames.
	traceException
	// Python: after "Traceback (most recent call last):" or a line below it.
	tracePython
	// Python: after the line that names the exception.
	tracePythonEnd
	// Python: after the line that leads over to another traceback.
	tracePythonChain
	// Go: after the line that says why, before a goroutine.
	tracePanic
	// Go: within the frames of a goroutine.
	traceGoroutine
)

var (
	exceptionWord   = []byte("Exception")
	errorWord       = []byte("Error")
	pythonHead      = []byte("Traceback (most recent call last):")
	pythonGroupHead = []byte("Exception Group Traceback (most recent call last):")
	pythonDuring    = []byte("During handling of the above exception, another exception occurred:")
	pythonCause     = []byte("The above exception was the direct cause of the following exception:")
	frameAt         = []byte("at ")
	goroutineHead   = []byte("goroutine ")
	goroutineTail   = []byte("]:")
)

// beginsTrace tells what a line that belongs to no trace may begin. A JSON
// object never does: loggers that write JSON keep a trace within it.
func beginsTrace(line []byte) trace {
	if len(line) == 0 || line[0] == '{' {
		return noTrace
	}
	switch {
	case line[len(line)-1] == ':' && (bytes.HasSuffix(line, pythonHead) || bytes.HasSuffix(line, pythonGroupHead)):
		return tracePython
	case hasPrefix(line, "panic: "), hasPrefix(line, "fatal error: "),
		len(line) > 20 && hasPrefix(line[20:], "http: panic serving "): // after the log package's date and time
		return tracePanic
	case bytes.HasPrefix(line, goroutineHead) && bytes.HasSuffix(line, goroutineTail):
		return traceGoroutine
	case isFrame(line), namesException(line), hasPrefix(line, "Caused by: "), hasPrefix(line, "java.lang.Throwable"):
		return traceException
	}
	return noTrace
}

// next tells what follows when line belongs to the trace so far; noTrace when it
// does not.
func (t trace) next(line []byte) trace {
	belongs := false
	switch t {
	case traceException:
		belongs = continuesException(line)
	case tracePython, tracePythonEnd, tracePythonChain:
		return t.nextPython(line)
	case tracePanic, traceGoroutine:
		return t.nextGo(line)
	}
	if belongs {
		return t
	}
	return noTrace
}

// namesException looks for a word that ends in Exception or Error before a colon
// or the end of the line, as in "java.io.IOException: broken pipe".
func namesException(line []byte) bool {
	for {
		i := bytes.IndexByte(line, 'E') // rare, and so the fastest to look for
		if i < 0 {
			return false
		}
		line = line[i:]
		rest, found := bytes.CutPrefix(line, exceptionWord)
		if !found {
			rest, found = bytes.CutPrefix(line, errorWord)
		}
		if found && (len(rest) == 0 || rest[0] == ':' || (len(rest) == 1 && rest[0] == '\r')) {
			return true
		}
		line = line[1:]
	}
}

// isFrame knows "\tat com.shop.Till.open(Till.java:17)", "   at Shop.Till.Open() in
// Till.cs:line 17" and "    at Object.open (till.js:17:3)".
func isFrame(line []byte) bool {
	rest := bytes.TrimLeft(line, " \t")
	return len(rest) < len(line) && bytes.HasPrefix(rest, frameAt)
}

func continuesException(line []byte) bool {
	rest := bytes.TrimLeft(line, " \t")
	indented := len(rest) < len(line)
	switch {
	case hasPrefix(rest, "Caused by: "), hasPrefix(rest, "Suppressed: "), hasPrefix(rest, "Wrapped by: "),
		hasPrefix(rest, "nested exception is:"), hasPrefix(rest, "--- End of "), hasPrefix(rest, "---> "):
		return true
	case indented:
		return bytes.HasPrefix(rest, frameAt) || hasPrefix(rest, "... ") || hasPrefix(rest, "- locked <") ||
			hasPrefix(rest, "- waiting ") || hasPrefix(rest, "[CIRCULAR REFERENCE")
	}
	return false
}

func (t trace) nextPython(line []byte) trace {
	indented := len(line) > 0 && (line[0] == ' ' || line[0] == '\t')
	leads := bytes.HasPrefix(line, pythonDuring) || bytes.HasPrefix(line, pythonCause)
	switch {
	case t == tracePython && indented, t == tracePythonChain && bytes.HasPrefix(line, pythonHead):
		return tracePython
	case t == tracePython && isExceptionName(line), t == tracePythonEnd && indented:
		return tracePythonEnd
	case t == tracePythonEnd && leads:
		return tracePythonChain
	case len(line) == 0 && t != tracePython:
		return t
	}
	return noTrace
}

// isExceptionName knows "ValueError: no such table" and "KeyboardInterrupt".
func isExceptionName(line []byte) bool {
	for i, c := range line {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', i > 0 && (c == '.' || c >= '0' && c <= '9'):
		default:
			return i > 0 && (c == ':' || c == '\r')
		}
	}
	return len(line) > 0
}

func (t trace) nextGo(line []byte) trace {
	switch {
	case bytes.HasPrefix(line, goroutineHead) && bytes.HasSuffix(line, goroutineTail):
		return traceGoroutine
	case len(line) == 0, hasPrefix(line, "[signal "), hasPrefix(line, "panic: "), hasPrefix(line, "fatal error: "):
		return tracePanic
	case line[0] == '\t', hasPrefix(line, "runtime: "), hasPrefix(line, "exit status "):
		return t
	case t == traceGoroutine && isGoFrame(line):
		return traceGoroutine
	}
	return noTrace
}

// isGoFrame knows "main.(*Till).open(0xc000012345, {0x1, 0x2})", "created by
// main.main in goroutine 1" and "...additional frames elided...".
func isGoFrame(line []byte) bool {
	if hasPrefix(line, "created by ") || hasPrefix(line, "...") {
		return true
	}
	if line[len(line)-1] != ')' {
		return false
	}
	name := line[:bytes.IndexByte(line, '(')+1]
	return len(name) > 1 && bytes.IndexByte(name, ' ') < 0
}

// hasPrefix is bytes.HasPrefix for a literal.
func hasPrefix(text []byte, prefix string) bool {
	return len(text) >= len(prefix) && string(text[:len(prefix)]) == prefix
}
