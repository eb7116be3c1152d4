package deploy

import (
	"path"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// What the charts promise about rights, whatever the values.
func TestPodsHaveNoMoreRightsThanPromised(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		o := mustParse(t, set)
		pod := o.pod()
		if token := pod.AutomountServiceAccountToken; token == nil || *token {
			t.Error("the pod gets a token for the API server")
		}
		if o.account != nil && (o.account.AutomountServiceAccountToken == nil || *o.account.AutomountServiceAccountToken) {
			t.Error("the service account hands out tokens")
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Error("the pod shares a namespace with the node")
		}
		if s := pod.SecurityContext.SeccompProfile; s == nil || s.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Error("no seccomp profile")
		}
		for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
			checkContainer(t, set, pod, c)
		}
		for _, v := range pod.Volumes {
			if v.HostPath != nil && set.chart == relayChart {
				t.Errorf("the relay mounts %s of the node", v.HostPath.Path)
			}
		}
	})
}

func checkContainer(t *testing.T, set valueSet, pod *corev1.PodSpec, c corev1.Container) {
	t.Helper()
	s := c.SecurityContext
	if s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
		t.Errorf("%s can write to its root file system", c.Name)
	}
	if s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.Privileged != nil && *s.Privileged {
		t.Errorf("%s can gain privileges", c.Name)
	}
	if !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
		t.Errorf("%s keeps capabilities: drops only %v", c.Name, s.Capabilities.Drop)
	}
	var allowed []corev1.Capability
	root := false
	switch {
	case c.Name == "spool-owner":
		allowed, root = []corev1.Capability{"CHOWN", "DAC_READ_SEARCH"}, true
	case set.chart == collectorChart && strings.Contains(set.values, "access: root"):
		allowed, root = []corev1.Capability{"DAC_READ_SEARCH"}, true
	}
	if !slices.Equal(s.Capabilities.Add, allowed) {
		t.Errorf("%s has the capabilities %v, want %v", c.Name, s.Capabilities.Add, allowed)
	}
	if uid, _, _ := user(pod, c); (uid == 0) != root {
		t.Errorf("%s runs as user %d", c.Name, uid)
	}
	if !root && !isTrue(s.RunAsNonRoot) && !isTrue(pod.SecurityContext.RunAsNonRoot) {
		t.Errorf("nothing stops an image from running %s as root", c.Name)
	}
	if c.Resources.Requests == nil || c.Resources.Limits.Memory().IsZero() {
		t.Errorf("%s has no requests or no memory limit", c.Name)
	}
	// Only the spool and the hub's store are written to.
	for _, m := range c.VolumeMounts {
		writable := m.Name == "spool" || m.Name == "hub" || m.Name == "more"
		if m.ReadOnly == writable {
			t.Errorf("%s mounts %s with readOnly %v", c.Name, m.MountPath, m.ReadOnly)
		}
		if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) && m.Name != "hub" {
			t.Errorf("%s mounts %s, which is no volume of the pod", c.Name, m.Name)
		}
	}
}

// user is what a container of a pod runs as.
func user(pod *corev1.PodSpec, c corev1.Container) (uid, gid int64, groups []int64) {
	for _, id := range []*int64{pod.SecurityContext.RunAsUser, c.SecurityContext.RunAsUser} {
		if id != nil {
			uid = *id
		}
	}
	for _, id := range []*int64{pod.SecurityContext.RunAsGroup, c.SecurityContext.RunAsGroup} {
		if id != nil {
			gid = *id
		}
	}
	return uid, gid, pod.SecurityContext.SupplementalGroups
}

func isTrue(b *bool) bool { return b != nil && *b }

// The account may read what the kubelet says, and nothing of the API server; and
// only with kubelet.enabled does the collector's container, and no other, get a
// token.
func TestTheAccountMayReadTheKubeletAlone(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		o := mustParse(t, set)
		wanted := set.chart == collectorChart && set.name != "no kubelet"
		if (o.role != nil) != wanted || (o.binding != nil) != wanted {
			t.Fatalf("role %v, binding %v, want %v", o.role, o.binding, wanted)
		}
		env := environment(t, o.pod().Containers[0])
		if (env["LONGHAUL_KUBELET_URL"] != "") != wanted || (env["LONGHAUL_KUBELET_TOKEN"] != "") != wanted {
			t.Errorf("kubelet %q with token %q, want %v", env["LONGHAUL_KUBELET_URL"], env["LONGHAUL_KUBELET_TOKEN"], wanted)
		}
		for _, c := range o.pod().InitContainers {
			if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "kubelet" }) {
				t.Errorf("%s sees the token", c.Name)
			}
		}
		if !wanted {
			return
		}
		resources := []string{"nodes/metrics", "nodes/pods"}
		if strings.Contains(set.values, "nodesProxy: true") {
			resources = append(resources, "nodes/proxy")
		}
		if len(o.role.Rules) != 1 || !slices.Equal(o.role.Rules[0].Verbs, []string{"get"}) ||
			!slices.Equal(o.role.Rules[0].APIGroups, []string{""}) || !slices.Equal(o.role.Rules[0].Resources, resources) {
			t.Errorf("the role allows %+v, want get on %v", o.role.Rules, resources)
		}
		if o.binding.RoleRef.Name != o.role.Name || o.binding.RoleRef.Kind != "ClusterRole" {
			t.Errorf("the binding is to %+v, the role is %s", o.binding.RoleRef, o.role.Name)
		}
		account := o.pod().ServiceAccountName
		if len(o.binding.Subjects) != 1 || o.binding.Subjects[0].Name != account || o.binding.Subjects[0].Namespace != "longhaul" {
			t.Errorf("the binding is for %+v, the pod runs as %s", o.binding.Subjects, account)
		}
	})
}

// A probe that asked the hub or a backend would restart a collector that is
// doing its work.
func TestProbesAskTheProcessAlone(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		c := mustParse(t, set).pod().Containers[0]
		for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Port.StrVal != "health" {
				t.Errorf("the %s probe does not ask the health port: %+v", name, probe)
			}
		}
		ports := map[string]int32{}
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
		}
		env := environment(t, c)
		if _, port, _ := strings.Cut(env["LONGHAUL_HEALTH"], ":"); port != itoa(ports["health"]) {
			t.Errorf("the health port is %d, the process listens on %q", ports["health"], env["LONGHAUL_HEALTH"])
		}
	})
}

func TestTheSpoolIsTheNodesAndOutlivesThePod(t *testing.T) {
	forEachSet(t, func(t *testing.T, set valueSet) {
		if set.chart != collectorChart {
			return
		}
		pod := mustParse(t, set).pod()
		env := environment(t, pod.Containers[0])
		for _, c := range append(slices.Clone(pod.InitContainers), pod.Containers...) {
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
				return m.Name == "spool" && m.MountPath == env["LONGHAUL_SPOOL_DIR"]
			}) {
				t.Errorf("%s does not mount the spool at %s", c.Name, env["LONGHAUL_SPOOL_DIR"])
			}
		}
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "spool" })
		if h := pod.Volumes[i].HostPath; h == nil || h.Type == nil || *h.Type != corev1.HostPathDirectoryOrCreate || !path.IsAbs(h.Path) {
			t.Errorf("the spool is not a directory of the node: %+v", pod.Volumes[i])
		}
		if args := pod.InitContainers[0].Args; len(args) != 2 || args[0] != env["LONGHAUL_SPOOL_DIR"] {
			t.Errorf("spool-owner is run with %q", args)
		} else if uid, _, _ := user(pod, pod.Containers[0]); args[1] != itoa(uid)+":"+itoa(uid) {
			t.Errorf("spool-owner gives the spool to %s, the collector runs as %d", args[1], uid)
		}
	})
}
