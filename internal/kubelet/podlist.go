package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
)

const (
	// maxAnswerBytes is far beyond what a node of 250 pods answers (about 5 MB).
	maxAnswerBytes = 16 << 20
	// maxValueBytes of a label (Kubernetes: 63) or an annotation (256 KiB).
	maxValueBytes = 4 << 10
)

// errTooLarge says that an answer was longer than it may be.
var errTooLarge = errors.New("the answer is too large")

// The part of v1.PodList that is used. Everything else is skipped.
type apiPod struct {
	Metadata struct {
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		UID               string            `json:"uid"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp *time.Time        `json:"creationTimestamp"`
		OwnerReferences   []struct {
			Kind       string `json:"kind"`
			Name       string `json:"name"`
			Controller bool   `json:"controller"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Spec struct {
		NodeName            string         `json:"nodeName"`
		HostNetwork         bool           `json:"hostNetwork"`
		Containers          []apiContainer `json:"containers"`
		InitContainers      []apiContainer `json:"initContainers"`
		EphemeralContainers []apiContainer `json:"ephemeralContainers"`
	} `json:"spec"`
	Status struct {
		Phase  string `json:"phase"`
		HostIP string `json:"hostIP"`
		PodIP  string `json:"podIP"`
		PodIPs []struct {
			IP string `json:"ip"`
		} `json:"podIPs"`
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
		ContainerStatuses          []apiStatus `json:"containerStatuses"`
		InitContainerStatuses      []apiStatus `json:"initContainerStatuses"`
		EphemeralContainerStatuses []apiStatus `json:"ephemeralContainerStatuses"`
	} `json:"status"`
}

type apiContainer struct {
	Name  string `json:"name"`
	Image string `json:"image"`
	Ports []struct {
		Name          string `json:"name"`
		ContainerPort int    `json:"containerPort"`
		Protocol      string `json:"protocol"`
	} `json:"ports"`
}

type apiStatus struct {
	Name         string `json:"name"`
	ContainerID  string `json:"containerID"`
	RestartCount int64  `json:"restartCount"`
	LastState    struct {
		Terminated struct {
			ContainerID string `json:"containerID"`
		} `json:"terminated"`
	} `json:"lastState"`
}

// parsePodList reads a v1.PodList pod by pod, so that memory is needed for one
// at a time. What is not a pod list, or longer than maxBytes, is an error.
func parsePodList(r io.Reader, maxBytes int64) ([]*Pod, error) {
	limited := &io.LimitedReader{R: r, N: maxBytes + 1}
	pods, err := decodePodList(json.NewDecoder(limited))
	if limited.N <= 0 {
		return nil, fmt.Errorf("%w: over %d KiB", errTooLarge, maxBytes>>10)
	}
	return pods, err
}

func decodePodList(d *json.Decoder) ([]*Pod, error) {
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	var pods []*Pod
	found := false
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		if key != "items" {
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return nil, err
			}
			if key == "kind" && string(skipped) != `"PodList"` {
				return nil, fmt.Errorf("the answer is a %s, not a PodList", skipped)
			}
			continue
		}
		found = true
		if pods, err = decodeItems(d); err != nil {
			return nil, err
		}
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return nil, err
	}
	if !found {
		return nil, errors.New("the answer has no items: it is not a list of pods")
	}
	return pods, nil
}

func decodeItems(d *json.Decoder) ([]*Pod, error) {
	start, err := d.Token()
	if err != nil || start == nil { // "items": null is how Go writes an empty list
		return nil, err
	}
	if start != json.Delim('[') {
		return nil, fmt.Errorf("items begins with %v, not a list", start)
	}
	var pods []*Pod
	for d.More() {
		var p apiPod
		if err := d.Decode(&p); err != nil {
			return nil, err
		}
		if p.Metadata.UID != "" && p.Metadata.Name != "" {
			pods = append(pods, p.pod())
		}
	}
	return pods, expect(d, json.Delim(']'))
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err == nil && got != want {
		err = fmt.Errorf("found %v where %v was expected", got, want)
	}
	return err
}

// pod keeps what longhaul uses.
func (p *apiPod) pod() *Pod {
	out := &Pod{
		UID:         p.Metadata.UID,
		Namespace:   p.Metadata.Namespace,
		Name:        p.Metadata.Name,
		Node:        p.Spec.NodeName,
		HostIP:      p.Status.HostIP,
		HostNetwork: p.Spec.HostNetwork,
		Phase:       p.Status.Phase,
		Ready:       "unknown",
		Labels:      short(p.Metadata.Labels),
		Annotations: short(p.Metadata.Annotations),
	}
	if p.Metadata.CreationTimestamp != nil {
		out.CreatedUnix = p.Metadata.CreationTimestamp.Unix()
	}
	for _, owner := range p.Metadata.OwnerReferences {
		if owner.Controller {
			out.OwnerKind, out.OwnerName = owner.Kind, owner.Name
		}
	}
	for _, condition := range p.Status.Conditions {
		if condition.Type == "Ready" {
			out.Ready = strings.ToLower(condition.Status)
		}
	}
	out.addIP(p.Status.PodIP)
	for _, ip := range p.Status.PodIPs {
		out.addIP(ip.IP)
	}
	out.addContainers(p.Spec.Containers, p.Status.ContainerStatuses, Ordinary)
	out.addContainers(p.Spec.InitContainers, p.Status.InitContainerStatuses, Init)
	out.addContainers(p.Spec.EphemeralContainers, p.Status.EphemeralContainerStatuses, Ephemeral)
	return out
}

func (p *Pod) addIP(text string) {
	ip, err := netip.ParseAddr(text)
	if err != nil {
		return
	}
	ip = ip.Unmap()
	for _, known := range p.IPs {
		if known == ip {
			return
		}
	}
	p.IPs = append(p.IPs, ip)
}

func (p *Pod) addContainers(containers []apiContainer, statuses []apiStatus, kind ContainerKind) {
	for _, c := range containers {
		container := Container{Name: c.Name, Kind: kind, Image: c.Image}
		for _, port := range c.Ports {
			if port.ContainerPort > 0 && port.ContainerPort <= 65535 {
				container.Ports = append(container.Ports, Port{Name: port.Name, Number: uint16(port.ContainerPort), Protocol: port.Protocol})
			}
		}
		for _, status := range statuses {
			if status.Name == c.Name {
				container.Started = status.ContainerID != ""
				container.ID, container.RestartCount = bareID(status.ContainerID), status.RestartCount
				container.PreviousID = bareID(status.LastState.Terminated.ContainerID)
			}
		}
		p.Containers = append(p.Containers, container)
	}
}

// bareID takes the runtime off an id such as containerd://4f0e….
func bareID(id string) string {
	if _, bare, found := strings.Cut(id, "://"); found {
		return bare
	}
	return id
}

// short leaves out long values.
func short(m map[string]string) map[string]string {
	for key, value := range m {
		if len(value) > maxValueBytes {
			delete(m, key)
		}
	}
	return m
}
