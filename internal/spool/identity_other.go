//go:build !linux

package spool

// Identity is not known here: a copied spool is not noticed at start, only by
// the relay.
func (f osFile) Identity() string { return "" }

// bootID is not known here: every start counts as one of the machine.
func bootID() string { return "" }
