// Package kubelet tests longhaul-collector against a real kubelet: built from
// k8s.io/kubernetes, in standalone mode (no API server), with a static pod on the
// machine's containerd and runc. It needs root, and is run by make test-kubelet.
//
// Everything is below one temporary directory: containerd has its own root,
// state and socket. The kubelet changes kernel settings (vm.overcommit_memory,
// kernel.panic, …) and makes control groups; both are put back at the end.
package kubelet
