// Package dashboards checks the Grafana dashboards and data sources under
// dashboards/. Every query in them is run against the real Loki, Prometheus and
// Jaeger, fed by real collectors and a real relay, and must return data; the
// links between logs, metrics and traces are followed in every direction; and a
// collector whose spool overflows must show up in the panels about loss.
//
// The backends take minutes to build the first time (make backends does it
// beforehand). DASHBOARDS_KEEP=<directory> keeps configurations, logs and stores
// there; DASHBOARDS_BINARIES=<directory> takes longhaul-collector and
// longhaul-relay from there instead of building them.
package dashboards
