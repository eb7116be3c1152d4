package kubeletsd

import (
	"context"
	"log/slog"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery/targetgroup"

	"github.com/longhaul/longhaul/internal/kubelet"
)

type discoverer struct {
	config SDConfig
	logger *slog.Logger
	said   map[string]bool // UIDs of pods whose annotations were complained of
}

// Run implements discovery.Discoverer.
func (d *discoverer) Run(ctx context.Context, updates chan<- []*targetgroup.Group) {
	if d.config.URL == "" {
		return
	}
	if d.config.Role == RoleNode {
		d.send(ctx, updates, []*targetgroup.Group{d.node()})
		return
	}
	source, err := kubelet.Open(d.config.kubelet(), d.logger)
	if err != nil { // its configuration was validated
		d.logger.Error("No targets are discovered", "error", err)
		return
	}
	defer source.Close()
	changes, stop := source.Changes()
	defer stop()
	sent := map[string]bool{}
	for {
		if !d.send(ctx, updates, d.groups(source.State(), sent)) {
			return
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return
		}
	}
}

func (*discoverer) send(ctx context.Context, updates chan<- []*targetgroup.Group, groups []*targetgroup.Group) bool {
	select {
	case updates <- groups:
		return true
	case <-ctx.Done():
		return false
	}
}

// groups is one group for each pod with targets, and an empty one for each that
// had some before.
func (d *discoverer) groups(state *kubelet.State, sent map[string]bool) []*targetgroup.Group {
	var groups []*targetgroup.Group
	present := map[string]bool{}
	uids := map[string]bool{}
	for _, pod := range state.Pods {
		uids[pod.UID] = true
		targets := d.targets(pod)
		if len(targets) == 0 {
			continue
		}
		group := &targetgroup.Group{Source: source(pod), Labels: podLabels(pod), Targets: targets}
		present[group.Source], sent[group.Source] = true, true
		groups = append(groups, group)
	}
	for source := range sent {
		if !present[source] {
			delete(sent, source)
			groups = append(groups, &targetgroup.Group{Source: source})
		}
	}
	for uid := range d.said {
		if !uids[uid] {
			delete(d.said, uid)
		}
	}
	return groups
}

// source names a pod's group. With the UID, because a pod of a stateful set may
// be made again between two looks.
func source(pod *kubelet.Pod) string {
	return "pod/" + pod.Namespace + "/" + pod.Name + "/" + pod.UID
}

func (d *discoverer) node() *targetgroup.Group {
	config := d.config.kubelet()
	scheme, address, err := config.Address()
	group := &targetgroup.Group{Source: "node"}
	if err == nil { // it was validated
		group.Targets = []model.LabelSet{{
			model.AddressLabel: model.LabelValue(address),
			model.SchemeLabel:  model.LabelValue(scheme),
		}}
	}
	return group
}
