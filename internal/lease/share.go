package lease

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
)

// part is one partition of a generation.
type part struct{ count, partition int }

func (p part) String() string { return fmt.Sprintf("%d of %d", p.partition, p.count) }

// quotas say how many partitions each live relay is to own, when owned is how many
// it owns: as even as can be, and so that the fewest change hands.
func quotas(count int, owned map[string]int) map[string]int {
	ids := make([]string, 0, len(owned))
	for id := range owned {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		return cmp.Or(cmp.Compare(owned[b], owned[a]), cmp.Compare(a, b))
	})
	quota := make(map[string]int, len(ids))
	for i, id := range ids {
		quota[id] = count / len(ids)
		if i < count%len(ids) {
			quota[id]++
		}
	}
	return quota
}

// byLiking sorts partitions in an order that differs from relay to relay, so that
// those that look for some at the same time do not all try for the same.
func byLiking(id string, parts []part) {
	liking := func(p part) uint64 {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s %d %d", id, p.count, p.partition)
		return h.Sum64()
	}
	slices.SortFunc(parts, func(a, b part) int { return cmp.Compare(liking(a), liking(b)) })
}
