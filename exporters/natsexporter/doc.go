// Package natsexporter is the way out of an edge node: it turns telemetry into
// frames, keeps them in the spool, and ships them to the hub.
//
// Its promise: ConsumeLogs, ConsumeMetrics and ConsumeTraces return nil only when
// the data's frame is fsynced in the spool. From then on the data is delivered or
// counted as lost with its cause. An error means that nothing of the call is
// promised; the caller may try again.
//
// Callers of one signal share a frame: a batch is closed when it has max_items,
// max_bytes, or is delay old. Frames of a signal are numbered in the order in
// which batches were opened. There is no queue in memory before the spool: a
// caller waits, which is the back-pressure. The hub may be away at any time,
// also at start.
package natsexporter
