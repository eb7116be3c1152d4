// Package containers tests the log receiver against a real container runtime:
// Debian's containerd and runc, started by the test with directories and a
// socket of its own, and driven through the Container Runtime Interface as the
// kubelet does. What runs in the containers is writer, in an image that the test
// builds; what it prints is line.
//
// Pods use the node's network, so that no CNI plugin is needed, and the native
// snapshotter, so that the kernel needs no overlay file system. Nothing is
// fetched from a registry.
//
// The test needs Linux, root, containerd and runc, and skips without them; make
// test-containers installs the two where it can. CONTAINERS_BINARIES names the
// directory of longhaul-collector and longhaul (the Makefile builds them).
// CONTAINERS_KEEP keeps logs and stores there.
package containers
