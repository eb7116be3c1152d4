// Package kubeletsd is a Prometheus service discovery whose targets come from
// the node's own kubelet (internal/kubelet): annotated pods, all container
// ports, or the kubelet itself. Importing it registers
//
//	longhaul_kubelet_sd_configs
//
// for scrape configurations. Labels have the names of Prometheus's own Kubernetes
// discovery (__meta_kubernetes_…), so its relabelling rules work unchanged. In
// addition __meta_longhaul_service_name holds the service.name by which the
// podmetadata processor knows the pod.
//
// Without a URL there are no targets. A pod's targets vanish when the kubelet
// does not list it any more or it has ended; while the kubelet does not answer
// they stay. README.md of receivers/prometheusreceiver documents the options.
package kubeletsd
