# longhaul. `make help` lists the targets.
# Needs Go, git, make; a C compiler for the race detector only.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# One set of flags for build, vet, test and lint, so that they share Go's build
# cache. remove_all_sd: no cloud service discoveries in Prometheus packages.
# grpcnotrace: no golang.org/x/net/trace, which keeps the linker from dropping
# unused methods. netgo: Go's own resolver.
TAGS := remove_all_sd,grpcnotrace,netgo
export GOFLAGS := -trimpath -tags=$(TAGS)
export CGO_ENABLED ?= 0
LDFLAGS := -s -w -X github.com/longhaul/longhaul/internal/version.version=$(VERSION)

BINARIES := longhaul-collector longhaul-relay longhaul

# 9,000 nodes carry the collector: 72 MB, stripped.
COLLECTOR_MAX_BYTES := 72000000

# The race detector multiplies compile time: it runs on our own packages, not on
# the mains, which link everything, nor on the tests that start real processes.
RACE_PACKAGES   = $(shell go list ./exporters/... ./processors/... ./receivers/... ./internal/... ./relay/hubextension/... | grep -v /internal/lab)
OTHER_PACKAGES  = $(shell go list ./... | grep -vE '/(exporters|processors|receivers|internal|relay/hubextension|test/e2e|test/dashboards)(/|$$)') ./internal/lab/...
TEST_FLAGS     ?=
FAULTS_FLAGS   ?=
BENCH_FLAGS    ?=

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z][a-z0-9-]*:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build longhaul-collector, longhaul-relay and longhaul into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/longhaul-collector ./collector
	go build -ldflags '$(LDFLAGS)' -o bin/longhaul-relay ./relay
	go build -ldflags '$(LDFLAGS)' -o bin/longhaul ./cmd/longhaul
	@for b in $(BINARIES); do printf '%-20s %5.1f MB\n' $$b $$(awk "BEGIN { print $$(wc -c < bin/$$b) / 1e6 }"); done

.PHONY: size
size: build ## fail when the collector is larger than 72 MB
	@bytes=$$(wc -c < bin/longhaul-collector); \
	if (( bytes > $(COLLECTOR_MAX_BYTES) )); then \
		echo "longhaul-collector has $$bytes bytes, the limit is $(COLLECTOR_MAX_BYTES). 'go list -deps ./collector' shows what came in."; exit 1; \
	fi; echo "longhaul-collector is within its limit of $$(( $(COLLECTOR_MAX_BYTES) / 1000000 )) MB"

.PHONY: test
test: build backends test-race test-programs test-deploy test-dashboards test-e2e ## run every test: unit with the race detector, programs, deployment, end to end

.PHONY: test-race
test-race: ## unit tests with the race detector
	CGO_ENABLED=1 go test -race -timeout 20m $(TEST_FLAGS) $(RACE_PACKAGES)

.PHONY: test-programs
test-programs: ## tests of the programs, their configurations and the import rules
	go test -timeout 15m $(TEST_FLAGS) $(OTHER_PACKAGES)

.PHONY: test-deploy
test-deploy: ## render charts and compose file and check what is in them
	go -C test/deploy test -timeout 45m $(TEST_FLAGS) ./...

.PHONY: test-dashboards
test-dashboards: build ## run every query of the dashboards against the real backends
	DASHBOARDS_BINARIES=$(CURDIR)/bin go test -timeout 45m -count=1 $(TEST_FLAGS) ./test/dashboards/...

.PHONY: test-e2e
test-e2e: build ## the whole path with real Loki, Prometheus and Jaeger
	E2E_BINARIES=$(CURDIR)/bin go test -timeout 45m -count=1 -v $(TEST_FLAGS) ./test/e2e/...

.PHONY: test-containers
test-containers: build ## log files of real containers; needs root, containerd and runc, which it installs with apt-get if it can
	test/containers/install.sh
	CONTAINERS_BINARIES=$(CURDIR)/bin go -C test/containers test -timeout 20m -count=1 -v $(TEST_FLAGS) ./...

.PHONY: test-kubelet
test-kubelet: build ## names and usage from a real kubelet; needs root, containerd and runc; builds the kubelet once (minutes)
	go -C test/kubelet build -ldflags '-s -w' -o $(CURDIR)/bin/kubelet k8s.io/kubernetes/cmd/kubelet
	KUBELET_BINARIES=$(CURDIR)/bin go -C test/kubelet test -timeout 20m -count=1 -v $(TEST_FLAGS) ./...

.PHONY: backends
backends: ## build Loki, Prometheus and Jaeger into the cache outside the checkout
	go run ./internal/lab/cmd/backends

.PHONY: faults
faults: build backends ## kill, cut, fill and damage for ~9 minutes; FAULTS_FULL=1: an hour; FAULTS_FLAGS='--rows a,b'
	go build -o bin/nats-server github.com/nats-io/nats-server/v2
	go test -c -o bin/spool.test ./internal/spool
	go test -c -o bin/faults.test ./test/faults
	go build -o bin/faults ./test/faults
	bin/faults --bin bin $(FAULTS_FLAGS)

.PHONY: demo
demo: build ## three stores, three backends, one screen; DEMO_SECONDS=120 for a scripted run
	bin/longhaul demo

.PHONY: bench
bench: ## run the benchmarks
	go test -run '^$$' -bench . -benchmem $(TEST_FLAGS) ./internal/... ./exporters/... ./processors/... ./receivers/...

.PHONY: bench-spool
bench-spool: build ## measure the spool beside the bare disk: append, catch-up, open, bytes a line (~6 minutes); BENCH_FLAGS='--help'
	go build -o bin/nats-server github.com/nats-io/nats-server/v2
	go build -o bin/bench-spool ./bench/spool
	bin/bench-spool --bin bin $(BENCH_FLAGS)

BENCH_LOGS_FLAGS ?=

.PHONY: bench-logs
bench-logs: build ## container logs: cost of a line, ours and an OpenTelemetry Collector's; BENCH_LOGS_FLAGS='-lines 500000'
	go build -o bin/bench-logs ./bench/logs
	bin/bench-logs -bin bin $(BENCH_LOGS_FLAGS)

BENCH_RELAY_FLAGS ?=

.PHONY: bench-relay
bench-relay: build ## the relay at capacity: cost of an item, ours and an OpenTelemetry Collector gateway's (~5 minutes)
	go build -o bin/nats-server github.com/nats-io/nats-server/v2
	go build -o bin/bench-relay ./bench/relay
	bin/bench-relay -bin bin $(BENCH_RELAY_FLAGS)

CLUSTERS    ?= 3000
SCRIPT      ?= steady
RELAYS      ?= 1
FLEET_FLAGS ?=

.PHONY: fleet-build
fleet-build:
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/longhaul-relay ./relay
	go build -o bin/nats-server github.com/nats-io/nats-server/v2
	go build -o bin/fleet ./test/fleet

.PHONY: fleet
fleet: fleet-build ## play a fleet of CLUSTERS=3000 against a real hub and relay; SCRIPT=steady, storm, hub-restart, relay-kill, backend-away, scale10k
	bin/fleet -bin bin -clusters $(CLUSTERS) -script $(SCRIPT) -relays $(RELAYS) $(FLEET_FLAGS)

# Every node of every size has the same load: what 10,000 clusters leave room for on two cores.
CURVE_CLUSTERS ?= 100 300 1000 3000 10000
CURVE_FLAGS    ?= -load 0.013 -phase 15s

.PHONY: fleet-curve
fleet-curve: fleet-build ## cost against the number of clusters, into docs/scale.md and docs/scale.svg (~15 minutes)
	rm -f bin/fleet-curve.jsonl
	for n in $(CURVE_CLUSTERS); do \
		bin/fleet -bin bin -script curve -clusters $$n -curve-out bin/fleet-curve.jsonl $(CURVE_FLAGS); \
	done
	GOFLAGS=-trimpath go -C test/fleet/curve run . -points $(CURDIR)/bin/fleet-curve.jsonl -svg $(CURDIR)/docs/scale.svg -doc $(CURDIR)/docs/scale.md

.PHONY: lint
lint: ## gofmt, go vet, staticcheck
	@unformatted=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); \
	if [[ -n $$unformatted ]]; then echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	$$(go -C test/tools tool -n staticcheck) -tags $(TAGS) ./...

.PHONY: vulncheck
vulncheck: ## known vulnerabilities that are reachable from our code (needs vuln.go.dev)
	$$(go -C test/tools tool -n govulncheck) -tags $(TAGS) ./...

.PHONY: clean
clean: ## remove what was built here (the backends' cache stays)
	rm -rf bin
