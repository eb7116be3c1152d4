package hub

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/longhaul/longhaul/internal/frame"
)

// Stored is what the subject of a kept frame says.
type Stored struct {
	Signal frame.Signal
	Origin Origin
	// Count is the number of partitions when the frame was kept, Partition which of
	// them the origin fell into. Count 0: a subject as the edge publishes it.
	Count, Partition int
}

// Partition is the partition an origin falls into when there are count of them,
// the same for every signal. It is what the server's partition() makes of the
// subject's tokens.
func Partition(o Origin, count int) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(token(o.Cluster) + token(o.Node))) // never fails
	return int(h.Sum32() % uint32(count))
}

// StoredSubject is the subject under which the stream keeps an origin's frame.
func StoredSubject(signal frame.Signal, o Origin, count int) string {
	return fmt.Sprintf("%s%s.%d.%d.%s", partsPrefix, signal, count, Partition(o, count), o.tokens())
}

// PartitionSubjects matches the kept frames of a partition.
func PartitionSubjects(signal frame.Signal, count, partition int) string {
	return fmt.Sprintf("%s%s.%d.%d.*.*", partsPrefix, signal, count, partition)
}

// GenerationSubjects matches the kept frames of all partitions of a count.
func GenerationSubjects(signal frame.Signal, count int) string {
	return fmt.Sprintf("%s%s.%d.>", partsPrefix, signal, count)
}

// PartitionConsumer is the durable consumer that reads a partition of a signal's
// stream for a destination.
func PartitionConsumer(destination string, count, partition int) string {
	return fmt.Sprintf("%s-%d-%d", destination, count, partition)
}

// ParsePartitionConsumer is the inverse of PartitionConsumer.
func ParsePartitionConsumer(name string) (destination string, count, partition int, ok bool) {
	rest, last, found := cutLast(name, "-")
	if !found {
		return "", 0, 0, false
	}
	destination, middle, found := cutLast(rest, "-")
	if !found || destination == "" {
		return "", 0, 0, false
	}
	count, partition, ok = parsePartition(middle, last)
	return destination, count, partition, ok
}

func cutLast(text, sep string) (before, after string, found bool) {
	i := strings.LastIndex(text, sep)
	if i < 0 {
		return text, "", false
	}
	return text[:i], text[i+len(sep):], true
}

func parsePartition(countText, partitionText string) (count, partition int, ok bool) {
	count, err := strconv.Atoi(countText)
	if err != nil || count < 1 || count > MaxPartitions || strconv.Itoa(count) != countText {
		return 0, 0, false
	}
	partition, err = strconv.Atoi(partitionText)
	if err != nil || partition < 0 || partition >= count || strconv.Itoa(partition) != partitionText {
		return 0, 0, false
	}
	return count, partition, true
}

// ParseStoredSubject reads what a kept frame's subject says, and also the subject
// as the edge publishes it.
func ParseStoredSubject(subject string) (Stored, error) {
	if rest, ok := strings.CutPrefix(subject, framesPrefix); ok {
		fields := strings.Split(rest, ".")
		if len(fields) != 3 {
			return Stored{}, fmt.Errorf("%w: %q", ErrSubject, subject)
		}
		return parseOrigin(subject, Stored{}, fields[0], fields[1], fields[2])
	}
	rest, ok := strings.CutPrefix(subject, partsPrefix)
	fields := strings.Split(rest, ".")
	if !ok || len(fields) != 5 {
		return Stored{}, fmt.Errorf("%w: %q", ErrSubject, subject)
	}
	var s Stored
	if s.Count, s.Partition, ok = parsePartition(fields[1], fields[2]); !ok {
		return Stored{}, fmt.Errorf("%w: %q: no partition %q of %q", ErrSubject, subject, fields[2], fields[1])
	}
	return parseOrigin(subject, s, fields[0], fields[3], fields[4])
}

func parseOrigin(subject string, s Stored, signal, cluster, node string) (_ Stored, err error) {
	if s.Signal, err = frame.ParseSignal(signal); err != nil {
		return Stored{}, fmt.Errorf("%w: %q: %w", ErrSubject, subject, err)
	}
	s.Origin = Origin{untoken(cluster), untoken(node)}
	return s, nil
}

// ParseFrameSubject reads signal and origin from a frame's subject, as published
// or as kept.
func ParseFrameSubject(subject string) (frame.Signal, Origin, error) {
	s, err := ParseStoredSubject(subject)
	return s.Signal, s.Origin, err
}
