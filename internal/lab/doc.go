// Package lab runs longhaul's whole path on one machine, with real parts only:
// Loki, Prometheus and Jaeger built from their Go modules, longhaul-relay,
// longhaul-collector, and the link between them. The demo and the end-to-end
// tests are written on top of it.
//
// # Backends
//
// Each backend is a Go module of its own under test/backends/<name>; its go.mod
// is the one place that names the version. A Builder compiles it once into
//
//	${XDG_CACHE_HOME:-~/.cache}/longhaul/backends/<name>-<version>/<name>
//
// at low priority, under a file lock (two builders never compile the same
// backend; the second waits and finds the first one's binary), and renames the
// finished binary into place, so a file under that name is always whole.
// Progress is reported as Events that print as one line each:
//
//	building loki v3.7.8: 412 of about 1,900 packages, 3m10s
//
// # Processes
//
// Everything that runs is a Process: a real child process on loopback, in a
// process group of its own (a terminal's Ctrl-C reaches the lab alone, which
// then stops its children in order), with its output appended to a log file.
// On Linux the kernel kills it when the lab dies, however that happens: nothing
// survives. Start waits until the process answers its readiness check; when it
// exits or does not answer, the error shows the tail of its log. A Process can
// be stopped (SIGTERM, then waited for), killed (SIGKILL), paused and resumed
// (SIGSTOP, SIGCONT), and started again with the same ports and data.
//
// Ports come from FreePort, below the range the kernel uses for outgoing
// connections: while a process is down nothing else can take its port.
//
// # Usage
//
//	b := lab.Builder{Progress: func(e lab.Event) { fmt.Fprintln(os.Stderr, e) }}
//	bin, err := b.Binary(ctx, "loki")
//	loki, err := lab.NewLoki(lab.LokiOptions{Binary: bin, Dir: dir})
//	err = loki.Start(ctx)
//	defer loki.Stop()
//	entries, err := loki.Entries(ctx, `{cluster="store-0001"}`, from, to)
//
// NewPrometheus, NewJaeger, NewRelay and NewCollector work likewise. A Link is a
// TCP proxy to put between a collector and the hub, which can be cut, made a
// black hole and restored. ReadMetrics reads the self-telemetry of a collector
// or a relay.
package lab
