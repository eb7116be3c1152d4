package kubelet

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

const (
	// keepGone is how long a pod is known after the kubelet stopped listing it.
	keepGone = 24 * time.Hour
	// maxGone bounds how many such pods are kept; the latest win.
	maxGone = 2000
)

// Ref names a pod by one thing that is known of it: the first of UID, namespace
// and name, IP that is set.
type Ref struct {
	UID             string
	Namespace, Name string
	IP              netip.Addr
}

type podName struct{ namespace, name string }

// State is what is known at one time. It does not change.
type State struct {
	// Pods are those the kubelet lists, by namespace and name.
	Pods   []*Pod
	gone   []*Pod
	byUID  map[string]*Pod
	byName map[podName]*Pod
	byIP   map[netip.Addr]*Pod
}

// newState makes the indexes. Pods with GoneUnix set are only found by what
// cannot have passed to another pod.
func newState(pods []*Pod) *State {
	s := &State{
		byUID:  make(map[string]*Pod, len(pods)),
		byName: make(map[podName]*Pod, len(pods)),
		byIP:   map[netip.Addr]*Pod{},
	}
	for _, p := range pods {
		if p.GoneUnix == 0 {
			s.Pods = append(s.Pods, p)
		} else {
			s.gone = append(s.gone, p)
		}
		s.byUID[p.UID] = p
		for _, annotation := range staticUIDs {
			// A static pod's directory of logs has the UID the kubelet gave it,
			// its mirror at the API server another.
			if uid := p.Annotations[annotation]; uid != "" && s.byUID[uid] == nil {
				s.byUID[uid] = p
			}
		}
		name := podName{p.Namespace, p.Name}
		if known := s.byName[name]; known == nil || newer(p, known) {
			s.byName[name] = p
		}
		if p.HostNetwork || !p.Running() {
			continue
		}
		for _, ip := range p.IPs {
			if known := s.byIP[ip]; known == nil || newer(p, known) {
				s.byIP[ip] = p
			}
		}
	}
	byNamespaceAndName := func(a, b *Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	}
	slices.SortFunc(s.Pods, byNamespaceAndName)
	slices.SortFunc(s.gone, byNamespaceAndName)
	return s
}

var staticUIDs = []string{"kubernetes.io/config.hash", "kubernetes.io/config.mirror"}

// newer says whether a pod follows another that had the same name or address.
func newer(a, b *Pod) bool {
	if (a.GoneUnix == 0) != (b.GoneUnix == 0) {
		return a.GoneUnix == 0
	}
	return a.CreatedUnix > b.CreatedUnix
}

func (s *State) find(ref Ref) *Pod {
	switch {
	case ref.UID != "":
		return s.byUID[ref.UID]
	case ref.Name != "":
		return s.byName[podName{ref.Namespace, ref.Name}]
	default:
		return s.byIP[ref.IP]
	}
}

// next is the state after the kubelet listed pods. Pods that are as they were
// stay the same *Pod; changed says whether any is not.
func (s *State) next(listed []*Pod, now time.Time) (state *State, changed bool) {
	all := make([]*Pod, 0, len(listed)+len(s.gone))
	present := make(map[string]bool, len(listed))
	for _, p := range listed {
		if present[p.UID] {
			continue
		}
		present[p.UID] = true
		if known := s.byUID[p.UID]; known != nil && reflect.DeepEqual(known, p) {
			p = known
		} else {
			changed = true
		}
		all = append(all, p)
	}
	var gone []*Pod
	for _, p := range s.Pods {
		if !present[p.UID] {
			left := *p
			left.GoneUnix = now.Unix()
			gone, changed = append(gone, &left), true
		}
	}
	for _, p := range s.gone {
		if !present[p.UID] {
			gone = append(gone, p)
		}
	}
	kept := keep(gone, now)
	changed = changed || len(kept) != len(gone)
	return newState(append(all, kept...)), changed
}

// keep applies the bounds to pods that are gone.
func keep(gone []*Pod, now time.Time) []*Pod {
	gone = slices.DeleteFunc(slices.Clone(gone), func(p *Pod) bool {
		return now.Sub(time.Unix(p.GoneUnix, 0)) > keepGone
	})
	if len(gone) > maxGone {
		slices.SortStableFunc(gone, func(a, b *Pod) int { return cmp.Compare(b.GoneUnix, a.GoneUnix) })
		gone = gone[:maxGone]
	}
	return gone
}

func (s *State) all() []*Pod { return append(slices.Clone(s.Pods), s.gone...) }
