package hub

import (
	"errors"
	"fmt"
	"strings"

	"github.com/longhaul/longhaul/internal/frame"
)

// maxDestinationBytes keeps a consumer's name short.
const maxDestinationBytes = 32

// ValidDestination says whether a destination's name can stand in a consumer's
// name and in a bucket key.
func ValidDestination(name string) error {
	if name == "" {
		return errors.New("is empty")
	}
	if len(name) > maxDestinationBytes {
		return fmt.Errorf("%q is longer than %d bytes", name, maxDestinationBytes)
	}
	for _, r := range name {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '-':
		default:
			return fmt.Errorf("%q holds %q; letters, digits, '_' and '-' are allowed", name, r)
		}
	}
	return nil
}

// CustodyKey is the bucket key of one spool's watermarks at the default destination.
func CustodyKey(o Origin, epoch frame.Epoch) string {
	return DestinationKey(DefaultDestination, o, epoch)
}

// DestinationKey is the bucket key of one spool's watermarks at a destination.
func DestinationKey(destination string, o Origin, epoch frame.Epoch) string {
	key := o.tokens() + "." + epoch.String()
	if destination == DefaultDestination {
		return key
	}
	return destination + "." + key
}

// ClusterKeys matches the bucket keys of a cluster's watermarks at every
// destination, or of all clusters' when it is empty.
func ClusterKeys(cluster string) []string {
	if cluster == "" {
		return []string{"*.*.*", "*.*.*.*"}
	}
	return []string{token(cluster) + ".*.*", "*." + token(cluster) + ".*.*"}
}

// DestinationKeys matches the bucket keys of all watermarks of a destination.
func DestinationKeys(destination string) string {
	if destination == DefaultDestination {
		return "*.*.*"
	}
	return destination + ".*.*.*"
}

// ParseDestinationKey is the inverse of DestinationKey. Keys of the bucket that
// are no watermarks are errors.
func ParseDestinationKey(key string) (destination string, o Origin, epoch frame.Epoch, err error) {
	fields := strings.Split(key, ".")
	destination = DefaultDestination
	if len(fields) == 4 {
		destination, fields = fields[0], fields[1:]
	}
	if len(fields) != 3 {
		return "", o, 0, fmt.Errorf("custody key %q: want 3 or 4 fields, have %d", key, len(fields))
	}
	if epoch, err = frame.ParseEpoch(fields[2]); err != nil {
		return "", o, 0, fmt.Errorf("custody key %q: %w", key, err)
	}
	return destination, Origin{untoken(fields[0]), untoken(fields[1])}, epoch, nil
}

// ParseCustodyKey is the inverse of CustodyKey; other destinations' keys are errors.
func ParseCustodyKey(key string) (Origin, frame.Epoch, error) {
	destination, o, epoch, err := ParseDestinationKey(key)
	if err == nil && destination != DefaultDestination {
		err = fmt.Errorf("custody key %q: of destination %q", key, destination)
	}
	return o, epoch, err
}

// KeySubject is the subject behind a bucket key.
func KeySubject(key string) string { return "$KV." + CustodyBucket + "." + key }

// SubjectKey is the inverse of KeySubject.
func SubjectKey(subject string) string { return strings.TrimPrefix(subject, "$KV."+CustodyBucket+".") }

// MemberKey is the bucket key of a relay that lives.
func MemberKey(id string) string { return memberPrefix + id }

// MemberKeys matches the keys of all relays.
const MemberKeys = memberPrefix + "*"

// ParseMemberKey is the inverse of MemberKey.
func ParseMemberKey(key string) (id string, ok bool) { return strings.CutPrefix(key, memberPrefix) }

// OwnerKey is the bucket key that says who owns a partition.
func OwnerKey(count, partition int) string {
	return fmt.Sprintf("%s%d-%d", ownerPrefix, count, partition)
}

// OwnerKeys matches the owner keys of all partitions.
const OwnerKeys = ownerPrefix + "*"

// ParseOwnerKey is the inverse of OwnerKey.
func ParseOwnerKey(key string) (count, partition int, ok bool) {
	rest, ok := strings.CutPrefix(key, ownerPrefix)
	if !ok {
		return 0, 0, false
	}
	first, last, ok := strings.Cut(rest, "-")
	if !ok {
		return 0, 0, false
	}
	return parsePartition(first, last)
}
