// Package frame is the unit of everything longhaul moves: a numbered header,
// an encoded batch of telemetry, and a checksum. The same bytes are the record
// in the spool, the NATS message, the JetStream entry and what the relay
// checks.
//
// A frame is self-contained: any frame decodes without any other. FORMAT.md
// specifies the bytes well enough to write a reader in another language.
//
// Promises of the readers in this package, whatever bytes they are given: an
// error and never a panic; no allocation beyond MaxPayload and
// MaxUncompressed, and none that the size of the input does not justify.
package frame
