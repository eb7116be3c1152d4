package prometheusexporter

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/confmap"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/exporters/internal/tenant"
	"github.com/longhaul/longhaul/internal/bytesize"
)

// Protocol is a version of remote write.
type Protocol string

// The allowed protocols.
const (
	// ProtocolAuto speaks 2.0 and falls back to 1.0 with a server that does not.
	ProtocolAuto Protocol = "auto"
	Protocol2    Protocol = "2.0"
	Protocol1    Protocol = "1.0"
)

// Config configures the exporter.
type Config struct {
	// ClientConfig holds endpoint (the full URL of remote write), timeout (of one
	// attempt), tls, headers, auth and the other settings of the collector's HTTP
	// clients.
	confighttp.ClientConfig `mapstructure:",squash"`

	// Protocol is auto, 2.0 or 1.0. Default auto.
	Protocol Protocol `mapstructure:"protocol"`

	// ResourceLabels maps resource attributes to labels of every series of the
	// resource. Entries given here are added to the defaults; an empty label
	// takes a default away. All other attributes are in target_info.
	ResourceLabels map[string]string `mapstructure:"resource_labels"`

	// MaxRequestSize bounds a request before compression. Default 1MiB.
	MaxRequestSize bytesize.Size `mapstructure:"max_request_size"`

	// Tenant says which tenant of Mimir and its kin a resource's metrics belong
	// to. Default: none is named.
	Tenant tenant.Config `mapstructure:"tenant"`

	// Delta bounds what is remembered to make counters of delta temporality.
	Delta DeltaConfig `mapstructure:"delta"`

	// ExpectedOutage is the age that data may reach in the edges' spools. At
	// start, and when the server was away, the exporter checks that Prometheus
	// takes samples as old as that, and warns if not. 0: no check. Default 72h.
	ExpectedOutage time.Duration `mapstructure:"expected_outage"`

	// Concurrency bounds how many requests Prometheus has in its hands; between
	// the bounds the number follows what it bears.
	Concurrency deliver.ConcurrencyConfig `mapstructure:"concurrency"`

	// Retry bounds the attempts inside one delivery.
	Retry deliver.RetryConfig `mapstructure:"retry"`
}

// DeltaConfig bounds the memory of series of delta temporality: about half a
// kilobyte each, more for histograms.
type DeltaConfig struct {
	// MaxSeries is how many series are remembered. The points of more are refused
	// and counted (delta_too_many_series). Default 200000.
	MaxSeries int `mapstructure:"max_series"`
	// MaxAge is how long a series is remembered after its last point came; one
	// that goes on later begins a new counter. Default 6h.
	MaxAge time.Duration `mapstructure:"max_age"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// Validate reports every bad key.
func (c *DeltaConfig) Validate() error {
	var errs []error
	if c.MaxSeries < 1 {
		errs = append(errs, fmt.Errorf("max_series: must be at least 1, is %d", c.MaxSeries))
	}
	if c.MaxAge < time.Minute {
		errs = append(errs, fmt.Errorf("max_age: must be at least 1m, is %s", c.MaxAge))
	}
	return errors.Join(errs...)
}

func createDefaultConfig() component.Config {
	client := confighttp.NewDefaultClientConfig()
	client.Endpoint = "http://127.0.0.1:9090/api/v1/write"
	client.Timeout = 10 * time.Second
	return &Config{
		ClientConfig: client,
		Protocol:     ProtocolAuto,
		ResourceLabels: map[string]string{
			"k8s.cluster.name":   "cluster",
			"k8s.node.name":      "node",
			"k8s.namespace.name": "namespace",
			"k8s.pod.name":       "pod",
			"k8s.container.name": "container",
		},
		// Fifteen thousand samples or so: large enough that a request's overhead does
		// not matter, small enough that a server keeps it in memory easily and a
		// repeated one costs little.
		MaxRequestSize: 1 * bytesize.MiB,
		Tenant:         tenant.DefaultConfig(),
		Delta:          DeltaConfig{MaxSeries: 200_000, MaxAge: 6 * time.Hour},
		ExpectedOutage: 72 * time.Hour,
		Concurrency:    deliver.DefaultConcurrencyConfig(),
		Retry:          deliver.DefaultRetryConfig(),
	}
}

// Unmarshal lets protocol be written without quotes, when YAML takes it for a
// number.
func (c *Config) Unmarshal(conf *confmap.Conf) error {
	var text string
	switch number := conf.Get("protocol").(type) {
	case float64:
		text = strconv.FormatFloat(number, 'f', 1, 64)
	case int:
		text = strconv.Itoa(number) + ".0"
	}
	if text != "" {
		if err := conf.Merge(confmap.NewFromStringMap(map[string]any{"protocol": text})); err != nil {
			return err
		}
	}
	return conf.Unmarshal(c)
}

// writePath is where Prometheus takes remote write.
const writePath = "/api/v1/write"

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// reservedLabels are made by the translation itself.
var reservedLabels = []string{"job", "instance", "le", "quantile"}

// Validate reports every bad key. The HTTP client's and retry's own keys are
// validated by their types.
func (c *Config) Validate() error {
	var errs []error
	if u, err := url.Parse(c.Endpoint); err != nil {
		errs = append(errs, fmt.Errorf("endpoint: %w", err))
	} else if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		errs = append(errs, fmt.Errorf("endpoint: must be the URL of remote write, such as http://127.0.0.1:9090/api/v1/write; is %q", c.Endpoint))
	} else if strings.Count(u.Path, writePath) > 1 {
		errs = append(errs, fmt.Errorf("endpoint: %q has %s twice; LONGHAUL_PROMETHEUS_URL takes Prometheus's base URL", c.Endpoint, writePath))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout: must be greater than 0, so that a hanging server is noticed; is %s", c.Timeout))
	}
	if c.Compression.IsCompressed() {
		errs = append(errs, fmt.Errorf("compression: must be empty, because remote write itself is snappy; is %q", c.Compression))
	}
	if c.Protocol != ProtocolAuto && c.Protocol != Protocol2 && c.Protocol != Protocol1 {
		errs = append(errs, fmt.Errorf("protocol: must be auto, 2.0 or 1.0, is %q", c.Protocol))
	}
	errs = append(errs, c.validateLabels()...)
	if c.MaxRequestSize < 64*bytesize.KiB {
		errs = append(errs, fmt.Errorf("max_request_size: must be at least 64KiB, is %s", c.MaxRequestSize))
	}
	if c.ExpectedOutage < 0 {
		errs = append(errs, fmt.Errorf("expected_outage: must not be negative, is %s", c.ExpectedOutage))
	}
	if c.Tenant.FromAttribute != "" || c.Tenant.Default != "" {
		for name := range c.Headers.Iter {
			if strings.EqualFold(name, c.Tenant.Header) {
				errs = append(errs, fmt.Errorf("headers::%s: is what tenant sets; name the tenant in one of the two", name))
			}
		}
	}
	return errors.Join(errs...)
}

func (c *Config) validateLabels() []error {
	var errs []error
	attributeOf := make(map[string]string)
	attributes := make([]string, 0, len(c.ResourceLabels))
	for attribute := range c.ResourceLabels {
		attributes = append(attributes, attribute)
	}
	slices.Sort(attributes)
	for _, attribute := range attributes {
		label := c.ResourceLabels[attribute]
		switch other := attributeOf[label]; {
		case label == "":
			continue
		case !labelName.MatchString(label) || strings.HasPrefix(label, "__"):
			errs = append(errs, fmt.Errorf("resource_labels::%s: %q is not a label name ([a-zA-Z_][a-zA-Z0-9_]*, not beginning with __)", attribute, label))
		case slices.Contains(reservedLabels, label):
			errs = append(errs, fmt.Errorf("resource_labels::%s: label %q is made from other things (%s)", attribute, label, strings.Join(reservedLabels, ", ")))
		case other != "":
			errs = append(errs, fmt.Errorf("resource_labels::%s: label %q is already made from %s", attribute, label, other))
		default:
			attributeOf[label] = attribute
		}
	}
	return errs
}
