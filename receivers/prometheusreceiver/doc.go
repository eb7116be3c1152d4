// Copyright The OpenTelemetry Authors
// SPDX-License-Identifier: Apache-2.0

// Package prometheusreceiver is the OpenTelemetry Collector's Prometheus receiver
// (opentelemetry-collector-contrib v0.159.0) without what a small node does not
// need: README.md says what was left out and how to follow upstream.
package prometheusreceiver
