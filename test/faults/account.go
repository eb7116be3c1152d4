package main

// account is what became of one row's items.
type account struct {
	in         int // acknowledged
	unanswered int // sent and never acknowledged: nobody was promised anything
	delivered  int // acknowledged and found in Loki
	duplicates int // times Loki took a number beyond the times it was sent
	resent     int // times Loki took a number again that had been sent again for want of an answer
	copies     int // times a number was sent again and that did not arrive: perhaps the collector never had it
	edgeLost   int // named by the collector
	relayLost  int // named by the relay, refusals of the backend included, without what came after all
	rejected   int // of those, refused by the backend: the edge had delivered them
	surplus    int // of the named, what single trials named beyond what was missing in them
}

// named is what the centre knows to be lost: there people look.
func (a account) named() int { return a.relayLost }

// missing is what was acknowledged and is not there.
func (a account) missing() int { return a.in - a.delivered }

// unnamed is what is missing and nobody knows.
func (a account) unnamed() int { return max(0, a.missing()-(a.named()-a.surplus)) }

// mistaken is what is named and is there all the same. What was never
// acknowledged may have been taken, lost and named, too, and so may all but one
// copy of what was sent again.
func (a account) mistaken() int {
	return a.surplus + max(0, a.named()-a.surplus-a.missing()-a.unanswered-a.copies)
}

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
		times, explained := 0, max(1, int(sent[n]))
		if n < len(taken) {
			times = int(taken[n])
		}
		a.copies += explained - min(explained, max(1, times))
		a.duplicates += max(0, times-explained)
		a.resent += max(0, min(times, explained)-1)
	}
	return a
}
