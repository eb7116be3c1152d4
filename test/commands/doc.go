// Package commands starts the built programs the way a user would and checks
// what they print and how they end. The scripts in testdata/script could have
// been typed (rogpeppe/go-internal/testscript); what needs a running process
// and free ports is in Go.
package commands
