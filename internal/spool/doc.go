// Package spool keeps frames on the disk of an edge until they are confirmed.
// It knows bytes and numbers, nothing of NATS or of what is in a frame.
//
// # Promises
//
//   - Append returns after an fsync covers the frame (FsyncAlways). Concurrent
//     callers share one. An error means: not taken, send it again.
//   - A frame acknowledged stays until Confirm covers it, or is evicted or found
//     damaged, and then its items are counted in Lost under that cause. Items
//     in = items confirmed + items held + items lost, per lane, at any time and
//     across restarts.
//   - Read gives only frames that are durable, unconfirmed and intact, in order.
//     A number given out by Read never comes to stand for another frame within
//     the spool's epoch.
//   - The segment files stay within MaxBytes, and leave MinFreeBytes of the file
//     system: segments are evicted, whole, or with Block new data is refused. What
//     goes first stands at evictOldest, what a wrong clock can do in limits.go.
//   - Open fails when the directory cannot be used, never for what its files
//     contain. Nothing is thrown away because it could not be read: damaged
//     bytes go to quarantine, up to an eighth of MaxBytes.
//   - Memory: about 50 bytes for each 256 KiB on disk and what is being written
//     or read at the moment. Payloads are not loaded to open a spool.
//
// # Lanes
//
// A signal has one live lane, to which frames are appended, and up to
// MaxSealedLanes backlog lanes: live lanes that Seal has ended, so that what is
// current need not wait behind them. Each counts its frames from 1 and is first in
// first out. A sealed lane goes when it is confirmed to its last number (Retire);
// one whose frames were all evicted stays until then, because the relay must hear
// what it lost.
//
// A spool that was copied, restored from a backup or set back does not know which
// numbers were given out since. It seals all lanes and begins new ones, with
// sequences that cannot have been used (replaceLanes).
//
// # Files
//
//	spool.json                     epoch, layout version, owner, its own place
//	lanes.json                     the lanes, and what left with retired ones
//	LOCK                           held with flock; the holder's pid
//	logs-1/                        a lane: signal, sequence; the highest is live
//	  00000000000000000001.seg     a segment, named by its first number
//	  00000000000000000001.idx     what is in it, once it is complete; see index.go
//	  00000000000000004711.seg     the next; appends go to the last
//	  ledger                       confirmed, lost; see ledgerEntry
//	quarantine/                    damaged bytes, named by where they were
//	state/                         SaveState
//
// A segment is frames one after the other as in package frame, and nothing
// else. Its name says where numbering goes on when it is empty, so the last
// segment of a lane is deleted only once a later one exists, and where the one
// before it ends, so what a failed fsync may have left there is never read.
//
// # What happens when
//
// The disk is full: a segment is evicted, once, for room; if that does not help
// the append fails and nothing more is evicted for ten seconds. A write fails: it
// is taken back. An fsync fails: it is not tried again, because the kernel may
// have dropped the data and report success; the segment ends where it was durable
// and a new one begins. A file, a lane's directory or the spool's is deleted: what
// it held is counted as lost and a new one begins. The file system turns read-only,
// or the directory is given to another user: appends fail and say so until it is
// put right.
//
// # Recovery
//
// Open reads the index of each complete segment, or walks its headers, and checks
// every byte of the last of each live lane. A frame cut short at the very end was
// never acknowledged: it is cut off and its number used again. Anything else that
// is not an intact frame with the expected identity and a rising number is damage:
// reading resumes at the next intact frame, and the numbers between count as lost
// (Corrupt), with exactly the items that the frames at both ends of the gap tell
// (Header.Before) or that the ledger misses; one for each frame where neither
// does. Damage behind the headers is found when the frame is read, and treated
// alike. A whole frame with a wrong checksum at the end, which a power cut can
// leave of a write nobody was promised, is counted too: better a loss named that
// was none than the reverse. Numbers the ledger knows as counted are not counted
// again. Of a sealed lane that was deleted lanes.json tells the items. A live lane
// that has neither segments nor a ledger although the spool was used before goes on
// as a new lane: what it held cannot be counted, but no number is used twice.
package spool
