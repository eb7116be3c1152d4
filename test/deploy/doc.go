// Package deploy checks what is under deploy/ as far as it goes without a
// cluster: the Helm charts are rendered by Helm with many sets of values and
// held against the Kubernetes schemas of several releases and against what the
// charts promise; the configuration and environment in them, and in the compose
// file, are given to the real longhaul-collector and longhaul-relay; the
// settings of Loki, Prometheus, Jaeger and NATS are given to the real servers.
//
// It is a Go module of its own, so that Helm and the Kubernetes libraries stay
// out of longhaul's:
//
//	cd test/deploy && go test ./...
package deploy
