// Package podmetadataprocessor names the pod a resource comes from: its
// workload, node, images, chosen labels and annotations, and its identity as a
// service. It learns them from the node's own kubelet (internal/kubelet), whose
// package comment says what is cached, for how long, and how long an unknown pod
// may hold up the pipeline.
//
// A resource costs one look-up in a map, and what is added is made once for each
// container of a pod. Attributes a resource has already are kept, unless
// overwrite is set. Resources of no pod pass unchanged.
package podmetadataprocessor
