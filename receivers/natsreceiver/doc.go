// Package natsreceiver is the relay's way in: it reads frames from the hub and
// hands their telemetry to the backends' exporters.
//
// Its promise: an origin's frames of a lane are delivered in the order of their
// numbers, each once; a frame is acknowledged to the hub, and confirmed to the
// edge, only after all exporters of the pipeline returned success and the lane's
// watermark is stored in the hub's custody bucket. Retryable errors are retried
// without end; while one signal's backend is away, the others go on. What a
// backend refuses for good goes to the stream LONGHAUL_REJECTED with its reason
// and is counted. A crash between a backend's success and the storing of the
// watermark (settleInterval, in a large fleet core.pace) delivers those frames
// twice. Frames that arrive after they were named as lost are delivered out of their
// order.
//
// Several relays share a hub's partitions (internal/lease): each origin falls into
// one, each partition is one relay's at a time. Several receivers with one
// connection are as many destinations of everything, each with its own ledgers;
// an edge hears what all of them have.
//
//	core ─┬─ destination ── outlet (a signal) ── worker ── parking
//	      └─ partition ──── share (of a destination): ledger, suspects, readers
//
// The path of a frame: reader (of a partition, signal and destination) → worker (of
// the outlet, chosen by origin) → judged by its share's ledger → merged with
// others, of whatever partition, into a batch → exporters → the partition's
// settler → hub and edge. What the exporters do not take goes by way of the worker's
// parking, which tries it again while the worker goes on. A worker delivers nothing of a partition that is not
// certainly this relay's (Claim.Held).
//
// What is lost is found by the ledger (internal/custody) and told as metrics, in
// the log, and as log records through the receiver's own logs pipeline (gaps.go).
package natsreceiver
