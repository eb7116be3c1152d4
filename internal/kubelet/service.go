package kubelet

// Service is a pod's (or, where given, a container's) identity as a service, by
// the OpenTelemetry semantic conventions for Kubernetes: the first that exists
// of the annotation resource.opentelemetry.io/<attribute>, the well-known labels
// app.kubernetes.io/…, and the names of what the pod belongs to.
type Service struct {
	Name       string
	Namespace  string
	Version    string
	InstanceID string
}

// ResourceAnnotation is the prefix of annotations that state a resource attribute.
const ResourceAnnotation = "resource.opentelemetry.io/"

// Service names the service of a pod's container; container may be nil. The
// well-known labels are only looked at when asked for: the conventions have it
// so, because all parts of an application may share app.kubernetes.io/instance.
func (p *Pod) Service(container *Container, wellKnownLabels bool) Service {
	w := p.Workload()
	label := func(name string) string {
		if !wellKnownLabels {
			return ""
		}
		return p.Labels["app.kubernetes.io/"+name]
	}
	s := Service{
		Name: first(
			p.Annotations[ResourceAnnotation+"service.name"],
			label("instance"), label("name"),
			w.Deployment, w.ReplicaSet, w.StatefulSet, w.DaemonSet, w.CronJob, w.Job,
			p.Name),
		Namespace:  first(p.Annotations[ResourceAnnotation+"service.namespace"], p.Namespace),
		Version:    first(p.Annotations[ResourceAnnotation+"service.version"], label("version")),
		InstanceID: p.Annotations[ResourceAnnotation+"service.instance.id"],
	}
	if container == nil {
		return s
	}
	if _, tag := container.ImageNameAndTag(); s.Version == "" && tag != "latest" {
		s.Version = tag
	}
	if s.InstanceID == "" {
		s.InstanceID = p.Namespace + "." + p.Name + "." + container.Name
	}
	return s
}

func first(values ...string) string {
	for _, value := range values {
		if value != "" {
			return value
		}
	}
	return ""
}
