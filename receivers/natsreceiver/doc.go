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
// watermark (settleInterval, in a large fleet storePace) delivers those frames twice. Frames
// that arrive after they were named as lost are delivered out of their order.
//
// What is lost is found by the ledger (internal/custody) and told as metrics, in
// the log, and as log records through the receiver's own logs pipeline (gaps.go).
//
// The path of a frame: reader (one a signal) → worker (chosen by origin) → judged
// by the ledger → merged with its neighbours → exporters → settler → hub and edge.
//
// One relay reads a hub at a time: on starting it takes the durable consumers
// over, so that it begins with the oldest frame that was not acknowledged.
package natsreceiver
