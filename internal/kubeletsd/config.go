package kubeletsd

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"

	"github.com/longhaul/longhaul/internal/kubelet"
)

// Roles say what becomes a target.
const (
	// RolePod: pods annotated with <annotation_prefix>/scrape: "true".
	RolePod = "pod"
	// RoleContainer: every port of every container, as Prometheus's Kubernetes
	// discovery has them.
	RoleContainer = "container"
	// RoleNode: the kubelet.
	RoleNode = "node"
)

const defaultPrefix = "prometheus.io"

// SDConfig is one entry of longhaul_kubelet_sd_configs. The keys it shares with
// kubelet.Config mean the same; equal ones share one source.
type SDConfig struct {
	URL                string         `yaml:"url,omitempty"`
	TokenFile          string         `yaml:"token_file,omitempty"`
	CAFile             string         `yaml:"ca_file,omitempty"`
	InsecureSkipVerify bool           `yaml:"insecure_skip_verify,omitempty"`
	PollInterval       model.Duration `yaml:"poll_interval,omitempty"`
	CacheFile          string         `yaml:"cache_file,omitempty"`
	// Role is pod, container or node.
	Role string `yaml:"role,omitempty"`
	// AnnotationPrefix begins the annotations scrape, port, path and scheme.
	AnnotationPrefix string `yaml:"annotation_prefix,omitempty"`
}

func init() { discovery.RegisterConfig(&SDConfig{}) }

func defaultConfig() SDConfig {
	return SDConfig{
		PollInterval:     model.Duration(kubelet.DefaultConfig().PollInterval),
		Role:             RolePod,
		AnnotationPrefix: defaultPrefix,
	}
}

// Name implements discovery.Config.
func (*SDConfig) Name() string { return "longhaul_kubelet" }

// NewDiscovererMetrics implements discovery.Config. What there is to know is
// among the podmetadata processor's metrics.
func (*SDConfig) NewDiscovererMetrics(prometheus.Registerer, discovery.RefreshMetricsInstantiator) discovery.DiscovererMetrics {
	return &discovery.NoopDiscovererMetrics{}
}

// UnmarshalYAML implements yaml.Unmarshaler and refuses what is not valid.
func (c *SDConfig) UnmarshalYAML(unmarshal func(any) error) error {
	*c = defaultConfig()
	type plain SDConfig
	if err := unmarshal((*plain)(c)); err != nil {
		return err
	}
	switch c.Role {
	case RolePod, RoleContainer, RoleNode:
	default:
		return fmt.Errorf("longhaul_kubelet_sd_configs: role: %q is not one of pod, container, node", c.Role)
	}
	if c.AnnotationPrefix == "" || strings.HasSuffix(c.AnnotationPrefix, "/") {
		return fmt.Errorf("longhaul_kubelet_sd_configs: annotation_prefix: %q must be what stands before the slash, such as prometheus.io", c.AnnotationPrefix)
	}
	config := c.kubelet()
	if err := config.Validate(); err != nil {
		return fmt.Errorf("longhaul_kubelet_sd_configs: %w", err)
	}
	return nil
}

func (c *SDConfig) kubelet() kubelet.Config {
	config := kubelet.DefaultConfig()
	config.URL, config.TokenFile, config.CAFile = c.URL, c.TokenFile, c.CAFile
	config.InsecureSkipVerify, config.CacheFile = c.InsecureSkipVerify, c.CacheFile
	config.PollInterval = time.Duration(c.PollInterval)
	return config
}

// NewDiscoverer implements discovery.Config.
func (c *SDConfig) NewDiscoverer(options discovery.DiscovererOptions) (discovery.Discoverer, error) {
	logger := options.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &discoverer{config: *c, logger: logger, said: map[string]bool{}}, nil
}
