// Package kubelet knows the pods of this node. It asks the node's own kubelet
// for them (GET /pods, over HTTPS with the service account's token, or over the
// read-only port) and never the API server, so it works while that is away and
// costs it nothing beyond what the kubelet itself asks to check the token.
//
// A Source polls, keeps the pods by UID, by namespace and name, and by IP, and
// answers Find from memory. A pod nobody knows makes it ask the kubelet at once:
// at most every few seconds, and the caller waits for the answer only for a
// moment, once for each unknown pod, and not at all while the kubelet does not
// answer. Everyone who opens a Source with the same Config shares one.
//
// What is known is also kept in a file, so that the logs of a pod that was
// deleted while the program was stopped still find their owner. Pods that are
// gone are kept for 24 hours, at most 2,000 of them. The file is one JSON object,
//
//	{"version":1, "crc32c":"<8 hex digits over the bytes of pods>", "pods":[…]}
//
// replaced atomically when something changed. A file that does not parse or
// match its sum is moved to <file>.corrupt, and the Source starts empty.
//
// Bounds: an answer of the kubelet has at most 16 MiB, one label or annotation
// value 4 KiB (longer ones are left out, such as kubectl's copy of the manifest).
package kubelet
