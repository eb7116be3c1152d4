package kubeletsd

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/util/strutil"

	"github.com/longhaul/longhaul/internal/kubelet"
)

// maxTargets of one pod.
const maxTargets = 32

const (
	metaPod       = model.MetaLabelPrefix + "kubernetes_pod_"
	metaNamespace = model.MetaLabelPrefix + "kubernetes_namespace"
	metaService   = model.MetaLabelPrefix + "longhaul_service_name"
)

func (d *discoverer) targets(pod *kubelet.Pod) []model.LabelSet {
	if !pod.Running() || len(pod.IPs) == 0 {
		return nil
	}
	if d.config.Role == RoleContainer {
		return containerTargets(pod)
	}
	if pod.Annotations[d.config.AnnotationPrefix+"/scrape"] != "true" {
		return nil
	}
	targets, err := annotatedTargets(pod, d.config.AnnotationPrefix)
	if err != nil && !d.said[pod.UID] {
		d.said[pod.UID] = true
		d.logger.Warn("A pod that wants to be scraped is not, because of its annotations",
			"namespace", pod.Namespace, "pod", pod.Name, "error", err)
	}
	return targets
}

// annotatedTargets are the ports the annotations name, or else every TCP port
// the ordinary containers declare.
func annotatedTargets(pod *kubelet.Pod, prefix string) ([]model.LabelSet, error) {
	common, err := annotatedLabels(pod, prefix)
	if err != nil {
		return nil, err
	}
	var targets []model.LabelSet
	add := func(c *kubelet.Container, port kubelet.Port) {
		if len(targets) < maxTargets {
			target := portLabels(pod, c, port)
			for name, value := range common {
				target[name] = value
			}
			targets = append(targets, target)
		}
	}
	named := pod.Annotations[prefix+"/port"]
	if named == "" {
		for i := range pod.Containers {
			for _, port := range pod.Containers[i].Ports {
				if pod.Containers[i].Kind == kubelet.Ordinary && (port.Protocol == "TCP" || port.Protocol == "") {
					add(&pod.Containers[i], port)
				}
			}
		}
		if len(targets) == 0 {
			return nil, fmt.Errorf("%s/port is missing, and no container declares a port", prefix)
		}
		return targets, nil
	}
	for text := range strings.SplitSeq(named, ",") {
		number, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
		if err != nil || number == 0 {
			return nil, fmt.Errorf("%s/port: %q is not a port", prefix, named)
		}
		container, port := declaring(pod, uint16(number))
		add(container, port)
	}
	return targets, nil
}

// declaring finds the container that declares a port; else the only one there
// is, or none.
func declaring(pod *kubelet.Pod, number uint16) (*kubelet.Container, kubelet.Port) {
	for i := range pod.Containers {
		for _, port := range pod.Containers[i].Ports {
			if port.Number == number {
				return &pod.Containers[i], port
			}
		}
	}
	return pod.OnlyContainer(), kubelet.Port{Number: number}
}

func annotatedLabels(pod *kubelet.Pod, prefix string) (model.LabelSet, error) {
	labels := model.LabelSet{}
	if scheme := pod.Annotations[prefix+"/scheme"]; scheme != "" {
		if scheme != "http" && scheme != "https" {
			return nil, fmt.Errorf("%s/scheme: %q is neither http nor https", prefix, scheme)
		}
		labels[model.SchemeLabel] = model.LabelValue(scheme)
	}
	path := pod.Annotations[prefix+"/path"]
	if path == "" {
		return labels, nil
	}
	path, query, _ := strings.Cut(path, "?")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	labels[model.MetricsPathLabel] = lv(path)
	parameters, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("%s/path: %w", prefix, err)
	}
	for name, values := range parameters {
		// Prometheus takes one value of each from a target.
		labels[model.ParamLabelPrefix+model.LabelName(strutil.SanitizeLabelName(name))] = lv(values[0])
	}
	return labels, nil
}

// containerTargets are those of Prometheus's own Kubernetes discovery.
func containerTargets(pod *kubelet.Pod) []model.LabelSet {
	var targets []model.LabelSet
	for i := range pod.Containers {
		c := &pod.Containers[i]
		if c.Kind == kubelet.Ephemeral {
			continue
		}
		ports := c.Ports
		if len(ports) == 0 {
			ports = []kubelet.Port{{}} // the address alone
		}
		for _, port := range ports {
			if len(targets) < maxTargets {
				targets = append(targets, portLabels(pod, c, port))
			}
		}
	}
	return targets
}

// portLabels are what tells a pod's targets apart; c may be nil.
func portLabels(pod *kubelet.Pod, c *kubelet.Container, port kubelet.Port) model.LabelSet {
	address := pod.IPs[0].String()
	labels := model.LabelSet{}
	if port.Number != 0 {
		number := strconv.Itoa(int(port.Number))
		address = net.JoinHostPort(address, number)
		labels[metaPod+"container_port_number"] = lv(number)
		labels[metaPod+"container_port_name"] = lv(port.Name)
		labels[metaPod+"container_port_protocol"] = lv(port.Protocol)
	}
	labels[model.AddressLabel] = lv(address)
	if c != nil {
		labels[metaPod+"container_name"] = lv(c.Name)
		labels[metaPod+"container_image"] = lv(c.Image)
		labels[metaPod+"container_id"] = lv(c.ID)
		labels[metaPod+"container_init"] = lv(strconv.FormatBool(c.Kind == kubelet.Init))
	}
	return labels
}

// podLabels are common to a pod's targets.
func podLabels(pod *kubelet.Pod) model.LabelSet {
	labels := model.LabelSet{
		metaNamespace:         lv(pod.Namespace),
		metaService:           lv(pod.Service(nil, false).Name),
		metaPod + "name":      lv(pod.Name),
		metaPod + "uid":       lv(pod.UID),
		metaPod + "ip":        lv(pod.IPs[0].String()),
		metaPod + "phase":     lv(pod.Phase),
		metaPod + "ready":     lv(pod.Ready),
		metaPod + "node_name": lv(pod.Node),
		metaPod + "host_ip":   lv(pod.HostIP),
	}
	if pod.OwnerKind != "" {
		labels[metaPod+"controller_kind"] = lv(pod.OwnerKind)
		labels[metaPod+"controller_name"] = lv(pod.OwnerName)
	}
	for kind, values := range map[model.LabelName]map[string]string{"label": pod.Labels, "annotation": pod.Annotations} {
		for name, value := range values {
			name := model.LabelName(strutil.SanitizeLabelName(name))
			labels[metaPod+kind+"_"+name] = lv(value)
			labels[metaPod+kind+"present_"+name] = "true"
		}
	}
	return labels
}

func lv(s string) model.LabelValue { return model.LabelValue(strings.ToValidUTF8(s, "\uFFFD")) }
