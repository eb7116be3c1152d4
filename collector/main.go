// Command longhaul-collector is the edge of longhaul: an OpenTelemetry
// Collector with the components a small cluster needs, and our nats exporter,
// which keeps what it accepts on disk until the centre has it.
//
// Without --config it runs config.yaml of this directory, embedded, and on a node
// with a kubelet kubelet.yaml over it. What it may be made of is in
// components.go; how the program behaves is in internal/distribution.
package main

import (
	_ "embed"
	"os"

	"github.com/longhaul/longhaul/internal/distribution"
)

var (
	//go:embed config.yaml
	defaultConfig []byte
	//go:embed kubelet.yaml
	kubeletConfig []byte // with LONGHAUL_KUBELET_URL
)

// The edge shares 8 GB with the shop's own software. The soft limit makes the
// garbage collector work harder rather than let a burst grow the process; the
// lower growth rate keeps an idle process small.
const (
	memoryLimitBytes = 100 << 20
	gcPercent        = 50
)

func main() {
	os.Exit(distribution.Program{
		Name:             "longhaul-collector",
		Description:      "longhaul-collector takes logs, metrics and traces on an edge node, keeps them on disk and ships them.",
		Components:       components(),
		Defaults:         defaults,
		Environment:      nameNode,
		MemoryLimitBytes: memoryLimitBytes,
		GCPercent:        gcPercent,
	}.Main())
}

func defaults() ([][]byte, error) {
	if err := distribution.Require("LONGHAUL_CLUSTER", "the name of the cluster this node belongs to"); err != nil {
		return nil, err
	}
	if os.Getenv("LONGHAUL_KUBELET_URL") == "" {
		return [][]byte{defaultConfig}, nil
	}
	return [][]byte{defaultConfig, kubeletConfig}, nil
}

// nameNode gives LONGHAUL_NODE its default, the host name. In Kubernetes the
// manifests set it from spec.nodeName.
func nameNode() {
	if os.Getenv("LONGHAUL_NODE") != "" {
		return
	}
	if name, err := os.Hostname(); err == nil {
		_ = os.Setenv("LONGHAUL_NODE", name)
	}
}
