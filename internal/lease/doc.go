// Package lease lets several relays share the partitions of the hub's streams, so
// that each partition has one reader at a time.
//
// A Member tells the others that it lives, by a key of the custody bucket that it
// writes once a second. Relays that live share the partitions evenly. Who owns a
// partition stands in the partition's owner key, which is written only when the
// owner changes; the revision of that write is the owner's fencing token. The
// server checks it with every watermark the owner stores: a relay that was paused
// and wakes up when another has taken its partition can store nothing any more,
// and a relay confirms to the edges only what it has stored.
//
// What a relay had in its hands when it lost a partition is delivered again to
// the next owner, in order: it sets the partition's consumers back to what was
// acknowledged.
package lease
