// Package version knows which build of longhaul is running.
package version

import "runtime"

// version is set by the linker: -X github.com/longhaul/longhaul/internal/version.version=v1.2.3.
var version = "dev"

// String is the version of this build: a tag, a tag with distance and commit, or "dev".
func String() string { return version }

// Line describes the build in one line, for a version command.
func Line(program string) string {
	return program + " " + version + " (" + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")"
}
