package podmetadataprocessor

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/longhaul/longhaul/internal/kubelet"
)

// maxRuleAttributes bounds what key_regex rules may add to one pod.
const maxRuleAttributes = 64

// rules are the configuration, ready for use.
type rules struct {
	wanted      map[string]bool
	labels      []rule
	annotations []rule
	service     ServiceConfig
}

type rule struct {
	key, attribute string
	expression     *regexp.Regexp // instead of key
}

func newRules(config *Config) (rules, error) {
	r := rules{wanted: map[string]bool{}, service: config.Service}
	for _, name := range config.Attributes {
		r.wanted[name] = true
	}
	var err error
	if r.labels, err = compileRules(config.Labels, labelPrefix); err != nil {
		return r, err
	}
	r.annotations, err = compileRules(config.Annotations, annotationPrefix)
	return r, err
}

func compileRules(configured []Rule, prefix string) ([]rule, error) {
	var compiled []rule
	for _, c := range configured {
		expression, err := c.compile()
		if err != nil {
			return nil, err
		}
		attribute := c.Attribute
		switch {
		case attribute != "":
		case expression != nil:
			attribute = prefix + "$0"
		default:
			attribute = prefix + c.Key
		}
		compiled = append(compiled, rule{key: c.Key, attribute: attribute, expression: expression})
	}
	return compiled, nil
}

func (r *rules) has(name string) bool { return r.wanted[name] }

type podAttribute struct{ name, value string }

// madeAttributes are the attributes made for what one State knows.
type madeAttributes struct {
	state *kubelet.State
	lists sync.Map // madeFor → []podAttribute
}

type madeFor struct {
	pod       *kubelet.Pod
	container *kubelet.Container
}

// attributesOf are the attributes of a pod and one of its containers (or nil)
// that do not change with its restarts. They are made once for each State.
func (p *podProcessor) attributesOf(pod *kubelet.Pod, container *kubelet.Container) []podAttribute {
	state := p.source.State()
	made := p.made.Load()
	if made == nil || made.state != state {
		made = &madeAttributes{state: state}
		p.made.Store(made)
	}
	key := madeFor{pod, container}
	if list, found := made.lists.Load(key); found {
		return list.([]podAttribute)
	}
	list := p.rules.make(pod, container)
	made.lists.Store(key, list)
	return list
}

// make lists what to add. The first of equal names counts: an annotation
// resource.opentelemetry.io/… is the most explicit, a rule comes before the rest.
func (r *rules) make(pod *kubelet.Pod, container *kubelet.Container) []podAttribute {
	var list []podAttribute
	add := func(name, value string) {
		if value != "" && !slices.ContainsFunc(list, func(a podAttribute) bool { return a.name == name }) {
			list = append(list, podAttribute{name, value})
		}
	}
	addWanted := func(name, value string) {
		if r.wanted[name] {
			add(name, value)
		}
	}
	if r.service.Enabled {
		for _, key := range slices.Sorted(maps.Keys(pod.Annotations)) {
			if name, found := strings.CutPrefix(key, kubelet.ResourceAnnotation); found && name != "" {
				add(name, pod.Annotations[key])
			}
		}
	}
	apply(r.labels, pod.Labels, add)
	apply(r.annotations, pod.Annotations, add)

	addWanted(attributeNamespace, pod.Namespace)
	addWanted(attributePod, pod.Name)
	addWanted(attributePodUID, pod.UID)
	if len(pod.IPs) > 0 && !pod.HostNetwork {
		addWanted(attributePodIP, pod.IPs[0].String())
	}
	addWanted(attributeNode, pod.Node)
	workload := pod.Workload()
	addWanted(attributeDeployment, workload.Deployment)
	addWanted(attributeReplicaSet, workload.ReplicaSet)
	addWanted(attributeStatefulSet, workload.StatefulSet)
	addWanted(attributeDaemonSet, workload.DaemonSet)
	addWanted(attributeJob, workload.Job)
	addWanted(attributeCronJob, workload.CronJob)
	if container != nil {
		addWanted(attributeContainer, container.Name)
		name, tag := container.ImageNameAndTag()
		addWanted(attributeImageName, name)
		addWanted(attributeImageTag, tag)
	}
	if r.service.Enabled {
		service := pod.Service(container, r.service.WellKnownLabels)
		add(attributeServiceName, service.Name)
		add(attributeServiceNamespace, service.Namespace)
		add(attributeServiceVersion, service.Version)
		add(attributeServiceInstance, service.InstanceID)
	}
	return list
}

func apply(rules []rule, values map[string]string, add func(name, value string)) {
	added := 0
	for _, rule := range rules {
		if rule.expression == nil {
			add(rule.attribute, values[rule.key])
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(values)) {
			match := rule.expression.FindStringSubmatchIndex(key)
			if match == nil || added == maxRuleAttributes {
				continue
			}
			added++
			add(string(rule.expression.ExpandString(nil, rule.attribute, key, match)), values[key])
		}
	}
}
