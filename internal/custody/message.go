// Package custody is the edge's duty to keep a frame until the backends have
// it, seen from both ends.
//
// The edge says hello: per lane what it holds, what it has shipped and what it
// has lost. The relay keeps a Ledger: per origin and lane the highest contiguous
// number that all backends accepted, stored in the hub's custody bucket before
// anybody is told. It answers with a Confirmation, on which the edge deletes.
//
// Numbers are accepted strictly in order. A number that comes too early is not
// accepted: when the numbers before it are still at the edge the relay asks for
// them (Resend, go-back-N as in RFC 3366 §3); when the edge has lost them they
// become a gap with a cause. So a watermark is one number per lane and no list of
// what is missing, and a hub that loses its store is filled again by the edges.
//
// How many items a gap held is exact: every frame says how many items all before
// it held (frame.Header.Before). The edge's counters of lost items say why. The
// Ledger keeps the latest gaps with the watermark, so that losses are told once
// they are durable, each once, and a frame that arrives after all corrects them.
//
// Both messages are JSON over core NATS: small, rare (one every few seconds per
// origin at most), and open to fields of later versions.
package custody

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/longhaul/longhaul/internal/frame"
)

// Version of both messages. A higher one is read all the same: fields are only
// ever added.
const Version = 1

// ErrMessage is returned for bytes that are no custody message.
var ErrMessage = errors.New("not a custody message")

// Hello is what an edge says on connecting and every HelloInterval after.
type Hello struct {
	Version int    `json:"v"`
	Epoch   string `json:"epoch"`
	Release string `json:"release,omitempty"`
	// Instance is random, made at every start of the edge's process: two of them
	// at a time with one origin and epoch are two nodes with copies of one spool.
	Instance string `json:"instance,omitempty"`
	// Seq counts the hellos of an instance, from 1: the answer names it, which proves
	// that this one was heard.
	Seq uint64 `json:"seq,omitempty"`
	// Lanes are those the spool has, oldest first. A lane of a signal older than
	// all that are listed is retired: empty, confirmed to its end, never used again.
	Lanes []HelloLane `json:"lanes"`
	// SpoolBytes and SpoolMaxBytes are the spool's size and limit.
	SpoolBytes    int64 `json:"spool_bytes"`
	SpoolMaxBytes int64 `json:"spool_max_bytes"`
	// OldestUnsentSeconds is the age of the oldest item not yet published.
	OldestUnsentSeconds float64 `json:"oldest_unsent_s"`
	// Cut is how many lanes ParseHello left out, the youngest above MaxLanes.
	Cut int `json:"-"`
}

// HelloLane is one lane's state at the edge.
type HelloLane struct {
	Lane string `json:"lane"`
	// Class is what the lane is now, as frame.Class prints it: a lane that was
	// sealed is "backlog" although its frames were written as "live".
	Class string `json:"class,omitempty"`
	// Floor is the lowest number the spool still holds, Next the number of the
	// frame to be written next: Floor == Next when the lane is empty.
	Floor uint64 `json:"floor"`
	Next  uint64 `json:"next"`
	// Before counts the items of all frames below Next, as frame.Header.Before does.
	Before uint64 `json:"before,omitempty"`
	// Shipped is the highest number below which the hub acknowledged every frame.
	Shipped uint64 `json:"shipped"`
	// Lost are the cumulative lost items by frame.Cause.
	Lost []uint64 `json:"lost,omitempty"`
}

// Confirmation is what the relay answers and, while data flows, says by itself.
type Confirmation struct {
	Version int        `json:"v"`
	Epoch   string     `json:"epoch"`
	Lanes   []Accepted `json:"lanes"`
	// Instance and Heard name the hello that this is the answer to; empty when it is none.
	Instance string `json:"instance,omitempty"`
	Heard    uint64 `json:"heard,omitempty"`
	// Conflict, when not empty, says that another instance ships the same origin
	// and epoch: the spool was copied. The edge must not ship until it is resolved.
	Conflict string `json:"conflict,omitempty"`
}

// Accepted is how far one lane was accepted.
type Accepted struct {
	Lane string `json:"lane"`
	// Confirmed is the highest number up to which every frame was accepted by all
	// backends, or is known to be lost. The edge may delete up to it.
	Confirmed uint64 `json:"confirmed"`
	// Resend, when not 0, asks the edge to publish again from that number on.
	Resend uint64 `json:"resend,omitempty"`
	// Stream identifies the hub's store for this signal (its creation time).
	// When it changes, what was shipped and not confirmed went with the old one.
	Stream string `json:"stream,omitempty"`
}

// ParseHello reads a Hello. Its lanes are MaxLanes at most.
func ParseHello(b []byte) (Hello, frame.Epoch, error) {
	var hello Hello
	if err := json.Unmarshal(b, &hello); err != nil {
		return hello, 0, fmt.Errorf("%w: hello: %w", ErrMessage, err)
	}
	epoch, err := frame.ParseEpoch(hello.Epoch)
	if err != nil {
		return hello, 0, fmt.Errorf("%w: hello: %w", ErrMessage, err)
	}
	hello.Cut = hello.bound()
	return hello, epoch, nil
}

// ParseConfirmation reads a Confirmation.
func ParseConfirmation(b []byte) (Confirmation, frame.Epoch, error) {
	var confirmation Confirmation
	if err := json.Unmarshal(b, &confirmation); err != nil {
		return confirmation, 0, fmt.Errorf("%w: confirmation: %w", ErrMessage, err)
	}
	epoch, err := frame.ParseEpoch(confirmation.Epoch)
	if err != nil {
		return confirmation, 0, fmt.Errorf("%w: confirmation: %w", ErrMessage, err)
	}
	return confirmation, epoch, nil
}
