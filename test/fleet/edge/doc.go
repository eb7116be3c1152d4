// Package edge plays the nodes of a fleet against a real hub: what a relay sees of
// longhaul-collector, without the collector. A Node numbers frames per lane, keeps
// what is not confirmed, publishes with the same windows, seals lanes in outages,
// says hello, obeys confirmations and requests to send again, as internal/shipper
// does; its spool is a list of numbers, because a frame can be made again from its
// template (package frames) at any time, byte for byte.
//
// Each node has a connection of its own (or, where the machine allows fewer open
// files, shares it with the other nodes of its cluster). The client is not nats.go:
// that takes two goroutines, two 32 KiB buffers, a table of futures and a subscription's
// goroutine for each connection; this one takes one goroutine and 2 KiB and does
// what a collector's client does on the wire: CONNECT, SUB, HPUB with a reply
// subject for the hub's acknowledgement, PING every 20 s.
package edge
