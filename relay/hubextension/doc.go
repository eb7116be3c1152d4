// Package hubextension runs a NATS server with JetStream inside the relay, so
// that a small installation is one process. A large one runs NATS by itself and
// leaves this extension out.
//
// The server is the upstream library, unchanged: clients of any kind may
// connect to it, and config_file takes any nats-server configuration (accounts,
// operator and JWTs, clustering, monitoring). What the extension decides itself
// is the address, the store directory and its limit, the payload limit and the
// certificates of its own keys.
//
// JetStream is transit, not custody: an edge keeps a frame until the backends
// accepted it, so losing the store directory costs a second transmission and no
// data. The file store therefore keeps its default sync interval.
//
// The nats receiver reaches the server through InProcessConn, without a socket.
package hubextension
