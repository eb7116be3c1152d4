package lokiexporter

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/confighttp"

	"github.com/longhaul/longhaul/exporters/internal/deliver"
	"github.com/longhaul/longhaul/exporters/internal/tenant"
	"github.com/longhaul/longhaul/internal/bytesize"
)

// pushPath is where Loki takes protobuf pushes.
const pushPath = "/loki/api/v1/push"

const (
	// maxLabels is Loki's default limit of label names per stream; service_name
	// is not counted by Loki, so one over would pass, but servers differ.
	maxLabels = 15
	// metadataReserve is what an entry may take in a request beside its line:
	// Loki's 64 KiB of structured metadata and its framing.
	metadataReserve = 128 * bytesize.KiB
)

// Config configures the exporter.
type Config struct {
	// ClientConfig holds endpoint, timeout (of one attempt), tls, headers, auth
	// and the other settings of the collector's HTTP clients. /loki/api/v1/push
	// is added to the endpoint unless it is there.
	confighttp.ClientConfig `mapstructure:",squash"`

	// Tenant says which tenant of Loki a resource's logs belong to. A plain string
	// is the tenant of all. Default: no tenant.
	Tenant tenant.Config `mapstructure:"tenant"`

	// Labels maps resource attributes to stream labels; all other attributes
	// become structured metadata. Entries given here are added to the defaults;
	// an empty label takes a default away. Every distinct set of label values is
	// a stream, and Loki wants few of them: see README.md.
	Labels map[string]string `mapstructure:"labels"`

	// LevelLabel is the stream label made from the severity; empty for none.
	// Default "level".
	LevelLabel string `mapstructure:"level_label"`

	// Cardinality bounds how many values a label may have.
	Cardinality CardinalityConfig `mapstructure:"cardinality"`

	// LateData says how entries that come hours late get into Loki.
	LateData LateDataConfig `mapstructure:"late_data"`

	// MaxLineSize is Loki's max_line_size: a longer line is cut, marked and
	// counted, because Loki would refuse it. Default 256KiB.
	MaxLineSize bytesize.Size `mapstructure:"max_line_size"`

	// MaxRequestSize bounds a request before compression. Default 1MiB.
	MaxRequestSize bytesize.Size `mapstructure:"max_request_size"`

	// Concurrency bounds how many requests are under way at once.
	Concurrency deliver.ConcurrencyConfig `mapstructure:"concurrency"`

	// Retry bounds the attempts inside one delivery.
	Retry deliver.RetryConfig `mapstructure:"retry"`
}

func createDefaultConfig() component.Config {
	client := confighttp.NewDefaultClientConfig()
	client.Endpoint = "http://127.0.0.1:3100"
	client.Timeout = 10 * time.Second
	return &Config{
		ClientConfig: client,
		Labels: map[string]string{
			"k8s.cluster.name":   "cluster",
			"k8s.namespace.name": "namespace",
			"service.name":       serviceNameLabel,
			"k8s.container.name": "container",
		},
		LevelLabel: "level",
		Tenant:     tenant.DefaultConfig(),
		Cardinality: CardinalityConfig{
			MaxValues:  1000,
			Window:     time.Hour,
			Attributes: map[string]int{"k8s.cluster.name": 0},
		},
		LateData: LateDataConfig{Mode: lateAuto, Label: "backfill", OldestExpected: 7 * 24 * time.Hour},
		// Loki's own default, which is 256 KB in units of 1024.
		MaxLineSize: 256 * bytesize.KiB,
		// Well below the 6 MB burst that Loki grants a tenant, so a request can
		// always pass the rate limit whole; large enough that the overhead of a
		// request is shared by thousands of lines.
		MaxRequestSize: 1 * bytesize.MiB,
		Concurrency:    deliver.DefaultConcurrencyConfig(),
		Retry:          deliver.DefaultRetryConfig(),
	}
}

var labelName = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*$`)

// Validate reports every bad key. The HTTP client's and retry's own keys are
// validated by their types.
func (c *Config) Validate() error {
	var errs []error
	if _, err := c.pushURL(); err != nil {
		errs = append(errs, fmt.Errorf("endpoint: %w", err))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("timeout: must be greater than 0, so that a hanging server is noticed; is %s", c.Timeout))
	}
	if c.Compression.IsCompressed() {
		errs = append(errs, fmt.Errorf("compression: must be empty, because the push protocol itself is snappy; is %q", c.Compression))
	}
	errs = append(errs, c.validateLabels()...)
	if c.MaxLineSize < bytesize.KiB {
		errs = append(errs, fmt.Errorf("max_line_size: must be at least 1KiB, is %s", c.MaxLineSize))
	}
	if least := c.MaxLineSize + metadataReserve; c.MaxRequestSize < least {
		errs = append(errs, fmt.Errorf("max_request_size: must be at least max_line_size and %s of metadata (%s), is %s", metadataReserve, least, c.MaxRequestSize))
	}
	return errors.Join(errs...)
}

func (c *Config) validateLabels() []error {
	var errs []error
	attributeOf := make(map[string]string)
	if c.LateData.Label != "" {
		attributeOf[c.LateData.Label] = "late_data::label"
	}
	if c.LevelLabel != "" {
		if !validLabel(c.LevelLabel) {
			errs = append(errs, fmt.Errorf("level_label: %q is not a label name ([a-zA-Z_][a-zA-Z0-9_]*, not beginning with __)", c.LevelLabel))
		}
		if attributeOf[c.LevelLabel] != "" {
			errs = append(errs, fmt.Errorf("level_label: label %q is already late_data::label", c.LevelLabel))
		}
		attributeOf[c.LevelLabel] = "level_label"
	}
	attributes := make([]string, 0, len(c.Labels))
	for attribute := range c.Labels {
		attributes = append(attributes, attribute)
	}
	slices.Sort(attributes)
	for _, attribute := range attributes {
		label := c.Labels[attribute]
		switch other := attributeOf[label]; {
		case label == "":
			continue
		case !validLabel(label):
			errs = append(errs, fmt.Errorf("labels::%s: %q is not a label name ([a-zA-Z_][a-zA-Z0-9_]*, not beginning with __)", attribute, label))
		case other != "":
			errs = append(errs, fmt.Errorf("labels::%s: label %q is already made from %s", attribute, label, other))
		default:
			attributeOf[label] = attribute
		}
	}
	if len(attributeOf) > maxLabels {
		errs = append(errs, fmt.Errorf("labels: %d labels, Loki takes at most %d; leave the others in structured metadata", len(attributeOf), maxLabels))
	}
	return errs
}

func validLabel(name string) bool {
	return labelName.MatchString(name) && !strings.HasPrefix(name, "__")
}

// pushURL adds the push path to the endpoint.
func (c *Config) pushURL() (string, error) {
	if c.Endpoint == "" {
		return "", errors.New("must be set to Loki's base URL, such as http://127.0.0.1:3100")
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return "", err
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return "", fmt.Errorf("%q is not an http:// or https:// URL", c.Endpoint)
	}
	if !strings.HasSuffix(u.Path, pushPath) {
		u.Path = strings.TrimSuffix(u.Path, "/") + pushPath
	}
	return u.String(), nil
}
