package podmetadataprocessor

import (
	"context"
	"net"
	"net/netip"
	"strings"

	"go.opentelemetry.io/collector/client"
	"go.opentelemetry.io/collector/pdata/pcommon"

	"github.com/longhaul/longhaul/internal/kubelet"
)

// findPod finds the pod of a resource by the first of these that it has: its
// UID, its IP, its namespace and name, the address the data came from. named
// says that the resource itself names a pod. What a resource says of itself is
// believed before the address: a sender may forward for others.
func findPod(ctx context.Context, source *kubelet.Source, attributes pcommon.Map) (pod *kubelet.Pod, named bool) {
	if uid := text(attributes, attributePodUID); uid != "" {
		return source.Find(ctx, kubelet.Ref{UID: uid}), true
	}
	if ip, err := netip.ParseAddr(text(attributes, attributePodIP)); err == nil {
		return source.Find(ctx, kubelet.Ref{IP: ip.Unmap().WithZone("")}), true
	}
	namespace, name := text(attributes, attributeNamespace), text(attributes, attributePod)
	if namespace != "" && name != "" {
		return source.Find(ctx, kubelet.Ref{Namespace: namespace, Name: name}), true
	}
	ip := sender(client.FromContext(ctx).Addr)
	if !ip.IsValid() {
		return nil, false
	}
	pod = source.Find(ctx, kubelet.Ref{IP: ip})
	if pod != nil && (name != "" && name != pod.Name || namespace != "" && namespace != pod.Namespace) {
		return nil, true
	}
	return pod, false
}

// sender is the IP of an address, or the zero one.
func sender(address net.Addr) netip.Addr {
	switch a := address.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr().Unmap().WithZone("")
	case *net.IPAddr:
		ip, _ := netip.AddrFromSlice(a.IP)
		return ip.Unmap()
	case nil:
		return netip.Addr{}
	}
	ip, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return netip.Addr{}
	}
	return ip.Addr().Unmap().WithZone("")
}

// containerOf is the container a resource names by name or id, or the only one
// of the pod, or nil.
func containerOf(pod *kubelet.Pod, attributes pcommon.Map) *kubelet.Container {
	if name := text(attributes, attributeContainer); name != "" {
		return pod.Container(name)
	}
	if id := text(attributes, attributeContainerID); id != "" {
		for i := range pod.Containers {
			if c := &pod.Containers[i]; c.ID == id || c.PreviousID == id {
				return c
			}
		}
	}
	return pod.OnlyContainer()
}

func text(attributes pcommon.Map, name string) string {
	if value, found := attributes.Get(name); found && value.Type() == pcommon.ValueTypeStr {
		return value.Str()
	}
	return ""
}

func isUnknownService(value pcommon.Value) bool {
	return value.Type() == pcommon.ValueTypeStr && (value.Str() == "" || strings.HasPrefix(value.Str(), unknownService))
}
