// Package spool keeps frames on the disk of an edge until they are confirmed.
// It knows bytes and numbers, nothing of NATS or of what is in a frame.
//
// # Promises
//
//   - Append returns after an fsync covers the frame. Concurrent callers share
//     one. An error means: not taken, send it again.
//   - A frame acknowledged stays until Confirm covers it, or is evicted or found
//     damaged, and then its items are counted in Lost under that cause. Items
//     in = items confirmed + items held + items lost, per lane, at any time and
//     across restarts.
//   - Read gives only frames that are durable, unconfirmed and intact, in order.
//     A number given out by Read never comes to stand for another frame within
//     the spool's epoch.
//   - The segment files stay within MaxBytes: the oldest are evicted, whole,
//     confirmed ones first.
//   - Open fails when the directory cannot be used, never for what its files
//     contain. Nothing is thrown away because it could not be read: damaged
//     bytes go to quarantine, up to an eighth of MaxBytes.
//   - Memory: about 40 bytes for each 256 KiB on disk and what is being written
//     or read at the moment. Payloads are not loaded to open a spool.
//
// # Files
//
//	spool.json                     epoch and layout version
//	LOCK                           held with flock; the holder's pid
//	logs-1/                        a lane: signal, sequence
//	  00000000000000000001.seg     a segment, named by its first number
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
// The disk is full: the oldest segment is evicted, once, for room; if that does
// not help the append fails and nothing more is evicted for ten seconds. A
// write fails: it is taken back. An fsync fails: it is not tried again, because
// the kernel may have dropped the data and report success; the segment ends
// where it was durable and a new one begins. A file or the lane's directory is
// deleted: what it held is counted as lost and a new one begins.
//
// # Recovery
//
// Open walks the headers of all segments and checks every byte of the last of
// each lane. A frame cut short at the very end was never acknowledged: it is
// cut off and its number used again. Anything else that is not an intact frame
// with the expected identity and a rising number is damage: reading resumes at
// the next intact frame, and the numbers between count as lost (Corrupt), with
// exactly the items the ledger misses, or one for each frame if the ledger is
// missing too or older than a power cut. Damage behind the headers is found
// when the frame is read, and treated alike. A whole frame with a wrong
// checksum at the end, which a power cut can leave of a write nobody was
// promised, is counted too: better a loss named that was none than the reverse.
// Numbers the ledger knows as counted are not counted again. A lane that has
// neither segments nor a ledger although the spool was used before goes on as a
// new lane: what it held cannot be counted, but no number is used twice.
package spool
