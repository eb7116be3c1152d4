package podmetadataprocessor

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/component"

	"github.com/longhaul/longhaul/internal/kubelet"
)

// Config is the configuration of the podmetadata processor.
type Config struct {
	// Kubelet says where the pods of this node are learnt from. Without a URL
	// everything passes unchanged.
	Kubelet kubelet.Config `mapstructure:"kubelet"`
	// Attributes lists what to add, of the names in the README. A list of one's
	// own replaces the default, which is all of them.
	Attributes []string `mapstructure:"attributes"`
	// Labels and Annotations of the pod become attributes by these rules.
	Labels      []Rule `mapstructure:"labels"`
	Annotations []Rule `mapstructure:"annotations"`
	// Service adds service.name and its like where they are missing.
	Service ServiceConfig `mapstructure:"service"`
	// Overwrite replaces attributes a resource has already.
	Overwrite bool `mapstructure:"overwrite"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// Rule makes attributes of the labels or annotations with a key, or with one
// that matches an expression. Exactly one of Key and KeyRegex is set.
type Rule struct {
	Key      string `mapstructure:"key"`
	KeyRegex string `mapstructure:"key_regex"` // must match the whole key
	// Attribute to write. After KeyRegex, $1 stands for what its first group
	// matched. Empty: k8s.pod.label.<key> or k8s.pod.annotation.<key>.
	Attribute string `mapstructure:"attribute"`
}

// ServiceConfig is about the attributes that name a service.
type ServiceConfig struct {
	// Enabled adds service.name, .namespace, .version and .instance.id, and what
	// annotations resource.opentelemetry.io/<attribute> state.
	Enabled bool `mapstructure:"enabled"`
	// WellKnownLabels lets app.kubernetes.io/instance, name and version name it
	// before the deployment does.
	WellKnownLabels bool `mapstructure:"well_known_labels"`
}

func createDefaultConfig() component.Config {
	return &Config{
		Kubelet:    kubelet.DefaultConfig(),
		Attributes: slices.Clone(knownAttributes),
		Service:    ServiceConfig{Enabled: true},
	}
}

// Validate reports every problem of the configuration by its key. The kubelet's
// keys are reported by kubelet.Config.
func (c *Config) Validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	for i, name := range c.Attributes {
		if !slices.Contains(knownAttributes, name) {
			report("attributes[%d]: %q is not one of %s", i, name, strings.Join(knownAttributes, ", "))
		}
	}
	for _, part := range []struct {
		key   string
		rules []Rule
	}{{"labels", c.Labels}, {"annotations", c.Annotations}} {
		for i, rule := range part.rules {
			if (rule.Key == "") == (rule.KeyRegex == "") {
				report("%s[%d]: set either key or key_regex", part.key, i)
			}
			if _, err := rule.compile(); err != nil {
				report("%s[%d]::key_regex: %w", part.key, i, err)
			}
		}
	}
	return errors.Join(problems...)
}

// compile returns the expression of KeyRegex, or nil.
func (r *Rule) compile() (*regexp.Regexp, error) {
	if r.KeyRegex == "" {
		return nil, nil
	}
	return regexp.Compile("^(?:" + r.KeyRegex + ")$")
}
