// Package containerlogsreceiver reads the log files of the containers of a
// Kubernetes node, /var/log/pods/<namespace>_<pod>_<uid>/<container>/<n>.log,
// and hands every line on once.
//
// # What it promises
//
//   - Positions follow durability. The read position of a line is saved only
//     after ConsumeLogs returned nil for it. A kill at any moment loses no
//     line; after it, at most the batches that were in flight (maxInFlight ×
//     batch.max_bytes) and what was confirmed in the last second
//     (saveGap) are read again.
//   - Back-pressure. While the pipeline refuses or blocks, reading waits. A
//     batch is retried without end; only a permanent error drops it, counted
//     and logged.
//   - Nothing is dropped for its form. A line that is neither CRI nor
//     json-file becomes a record with the raw line as body and is counted.
//   - Bounded memory: maxInFlight+1 batches, one read buffer, and at most
//     maxPendingBytes of lines whose end has not come yet.
//   - Fairness: one sweep takes at most readQuantum bytes of each file.
//   - Lines of one file enter batches in order. Batches are delivered
//     concurrently, so the order between two batches of one file is that of
//     their timestamps, not of their arrival.
//
// # How it works
//
// One goroutine (reader) discovers files and reads them in sweeps into a batch,
// a flat arena of text and records. A full batch, or what a sweep gathered when
// there is no more to read, goes to one of maxInFlight workers (delivery), which
// builds the pdata and calls the next consumer. Confirmed batches advance the
// position table in the order they were cut, and a saver writes the table to the
// position file (temporary file, fsync, rename, fsync of the directory).
//
// A file is known by device, inode and a fingerprint of its first bytes. A file
// that left its path is read to its end before the one that took its place, and
// closed when it stayed at its end for drainGrace.
//
// # Position file
//
// A JSON object: version, crc32c (Castagnoli, hex, over the bytes of files) and
// files: path, device, inode, fingerprint (hex CRC-32 and CRC-32C of the
// first fingerprint_bytes bytes), offset (everything before it is durable), partial
// (where the unfinished record of stdout and stderr begins, -1 for none),
// carried (what that record was when it came from the file before), modified
// (ns), closed, unfound (ns: of what was written beside the path since then not
// everything may have been found), and former (the inode holds another text now). A
// file that does not parse or match its checksum is moved aside as
// <name>.corrupt-<time>, and all logs are read from their beginning.
package containerlogsreceiver
