package main

// account is what became of one row's items.
type account struct {
	in         int // acknowledged
	unanswered int // sent and never acknowledged: nobody was promised anything
	delivered  int // acknowledged and found in Loki
	duplicates int // times Loki took a number beyond the times it was sent
	resent     int // times Loki took a number again that had been sent again for want of an answer
	edgeLost   int // named by the collector
	relayLost  int // named by the relay, refusals of the backend included
	rejected   int // of those, refused by the backend: the edge had delivered them
}

// named is what both ends know to be lost; what only one of them names does not
// count.
func (a account) named() int {
	return min(a.edgeLost, a.relayLost-a.rejected) + a.rejected
}

// unnamed is what was acknowledged, is not there, and nobody knows.
func (a account) unnamed() int { return max(0, a.in-a.delivered-a.named()) }

// agreed says whether the relay names no losses but the collector's. It may name
// fewer: what the collector let go of when the hub had it already is not lost.
func (a account) agreed() bool { return a.relayLost-a.rejected <= a.edgeLost }

// count compares what was sent with what Loki took (how often) and has (found).
func count(sent []uint8, acked []bool, taken []uint16, found map[int]bool) (a account) {
	for n := 1; n < len(acked); n++ {
		if acked[n] {
			a.in++
			if found[n] {
				a.delivered++
			}
		} else {
			a.unanswered++
		}
		if n >= len(taken) {
			continue
		}
		times, explained := int(taken[n]), max(1, int(sent[n]))
		a.duplicates += max(0, times-explained)
		a.resent += max(0, min(times, explained)-1)
	}
	return a
}
