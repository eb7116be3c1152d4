package kubelet

import (
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Pod is what is known of one pod. It does not change: a newer state is a new Pod.
type Pod struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Node      string `json:"node,omitempty"`
	HostIP    string `json:"host_ip,omitempty"` // of the node
	// HostNetwork: the pod has the node's addresses, which it shares with others.
	HostNetwork bool              `json:"host_network,omitempty"`
	IPs         []netip.Addr      `json:"ips,omitempty"`
	Phase       string            `json:"phase,omitempty"` // Pending, Running, Succeeded, Failed, Unknown
	Ready       string            `json:"-"`               // true, false, unknown; "" before the kubelet said it
	CreatedUnix int64             `json:"created,omitempty"`
	OwnerKind   string            `json:"owner_kind,omitempty"` // of the controlling owner
	OwnerName   string            `json:"owner_name,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Containers  []Container       `json:"containers,omitempty"`
	// GoneUnix is when the kubelet first did not list the pod any more; 0 while
	// it does. Unix seconds.
	GoneUnix int64 `json:"gone,omitempty"`
}

// ContainerKind tells the containers of a pod apart.
type ContainerKind string

// The kinds of containers.
const (
	Ordinary  ContainerKind = ""
	Init      ContainerKind = "init"
	Ephemeral ContainerKind = "ephemeral"
)

// Container is one container of a pod.
type Container struct {
	Name         string        `json:"name"`
	Kind         ContainerKind `json:"kind,omitempty"`
	Image        string        `json:"image,omitempty"` // as the pod's specification names it
	ID           string        `json:"id,omitempty"`    // of the runtime, without its scheme
	PreviousID   string        `json:"previous_id,omitempty"`
	Started      bool          `json:"started,omitempty"` // ID and RestartCount are known
	RestartCount int64         `json:"restart_count,omitempty"`
	Ports        []Port        `json:"ports,omitempty"`
}

// Port is a port a container declares.
type Port struct {
	Name     string `json:"name,omitempty"`
	Number   uint16 `json:"number"`
	Protocol string `json:"protocol,omitempty"`
}

// Workload names what a pod belongs to. Empty fields do not apply.
type Workload struct {
	Deployment, ReplicaSet, StatefulSet, DaemonSet, Job, CronJob string
}

// Running says that the pod has not ended.
func (p *Pod) Running() bool {
	return p.GoneUnix == 0 && p.Phase != "Succeeded" && p.Phase != "Failed"
}

// Container returns the container of a name, or nil.
func (p *Pod) Container(name string) *Container {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// OnlyContainer returns the one ordinary container, or nil if there are several.
func (p *Pod) OnlyContainer() *Container {
	var only *Container
	for i := range p.Containers {
		if p.Containers[i].Kind != Ordinary {
			continue
		}
		if only != nil {
			return nil
		}
		only = &p.Containers[i]
	}
	return only
}

const templateHashLabel = "pod-template-hash"

// Workload derives the owners from the controlling owner alone, because the
// kubelet knows no other object. A deployment names its replica sets
// <deployment>-<hash> and labels their pods with the hash; a cron job names its
// jobs <cron job>-<minutes since 1970 for which the job was scheduled>.
func (p *Pod) Workload() Workload {
	var w Workload
	switch p.OwnerKind {
	case "ReplicaSet":
		w.ReplicaSet = p.OwnerName
		if hash := p.Labels[templateHashLabel]; hash != "" {
			if deployment, found := strings.CutSuffix(p.OwnerName, "-"+hash); found {
				w.Deployment = deployment
			}
		}
	case "StatefulSet":
		w.StatefulSet = p.OwnerName
	case "DaemonSet":
		w.DaemonSet = p.OwnerName
	case "Job":
		w.Job = p.OwnerName
		w.CronJob = p.cronJob()
	}
	return w
}

// A job's pods may be made again for as long as it is tried.
const (
	longestJob   = 31 * 24 * time.Hour
	clockDiffers = 10 * time.Minute
)

func (p *Pod) cronJob() string {
	i := strings.LastIndexByte(p.OwnerName, '-')
	if i <= 0 || p.CreatedUnix == 0 {
		return ""
	}
	minutes, err := strconv.ParseInt(p.OwnerName[i+1:], 10, 32)
	if err != nil {
		return ""
	}
	since := time.Duration(p.CreatedUnix-minutes*60) * time.Second
	if since < -clockDiffers || since > longestJob {
		return "" // a job that somebody named with a number
	}
	return p.OwnerName[:i]
}

// ImageNameAndTag splits an image reference; the digest is left out. Without a
// tag and a digest the tag is latest.
func (c *Container) ImageNameAndTag() (name, tag string) {
	name, _, pinned := strings.Cut(c.Image, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	if name != "" && !pinned {
		tag = "latest"
	}
	return name, tag
}

// IDAt is the runtime's id of the container after so many restarts, or "" if it
// is not known: the kubelet tells the current one and the one before.
func (c *Container) IDAt(restarts int64) string {
	switch {
	case !c.Started:
		return ""
	case restarts == c.RestartCount:
		return c.ID
	case restarts == c.RestartCount-1:
		return c.PreviousID
	}
	return ""
}
