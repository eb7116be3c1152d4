// Package tenant says which tenant of a backend a resource's telemetry belongs
// to, for the exporters of the relay. Loki, Mimir and their kin keep tenants
// apart by a header of the request, so a request carries one tenant's data.
package tenant

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"go.opentelemetry.io/collector/confmap"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// Header is where Loki, Mimir and Cortex read the tenant from.
const Header = "X-Scope-OrgID"

// Config is the part `tenant` of an exporter's configuration. In YAML a plain
// string is short for default alone.
type Config struct {
	// FromAttribute names the resource attribute that holds the tenant, such as
	// k8s.cluster.name. Empty: all data belongs to Default.
	FromAttribute string `mapstructure:"from_attribute"`
	// Default is the tenant of resources without the attribute, or with a value
	// that cannot be a tenant. Empty: no header is sent for these.
	Default string `mapstructure:"default"`
	// Header is the name of the header. Default X-Scope-OrgID.
	Header string `mapstructure:"header"`

	// prevent unkeyed literal initialization
	_ struct{}
}

// DefaultConfig sends no tenant.
func DefaultConfig() Config { return Config{Header: Header} }

// Unmarshal reads a map of the keys.
func (c *Config) Unmarshal(conf *confmap.Conf) error { return conf.Unmarshal(c) }

// UnmarshalText reads the short form.
func (c *Config) UnmarshalText(text []byte) error {
	*c = DefaultConfig() // mapstructure hands in an empty one
	c.Default = string(text)
	return nil
}

// longest is what Loki and Mimir take as a tenant.
const longest = 150

// Valid says whether text can be a tenant, as Loki and Mimir see it: letters, digits
// and !-_.*'(), but neither . nor .. as a whole.
func Valid(text string) bool {
	if text == "" || len(text) > longest || text == "." || text == ".." {
		return false
	}
	for i := range len(text) {
		switch c := text[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!-_.*'()", c) < 0:
			return false
		}
	}
	return true
}

var token = regexp.MustCompile("^[!#$%&'*+\\-.^_`|~0-9A-Za-z]+$")

// Validate reports every bad key.
func (c *Config) Validate() error {
	var errs []error
	if c.Default != "" && !Valid(c.Default) {
		errs = append(errs, fmt.Errorf("default: %q cannot be a tenant: letters, digits and !-_.*'(), at most 150", c.Default))
	}
	if !token.MatchString(c.Header) {
		errs = append(errs, fmt.Errorf("header: %q is not the name of a header; the usual one is %s", c.Header, Header))
	} else if slices.Contains([]string{"Content-Type", "Content-Encoding", "Content-Length", "Host", "User-Agent"}, http.CanonicalHeaderKey(c.Header)) ||
		strings.HasPrefix(http.CanonicalHeaderKey(c.Header), "X-Prometheus-") {
		errs = append(errs, fmt.Errorf("header: %s is set by the exporter itself; the usual one is %s", c.Header, Header))
	}
	return errors.Join(errs...)
}

// Of returns the tenant of a resource by its attributes, of which the first of a name
// counts; empty means that no header is sent. The name may be a part of them.
func (c *Config) Of(attributes []otlpwire.Attribute) string {
	if c.FromAttribute == "" {
		return c.Default
	}
	for i := range attributes {
		if attributes[i].Key != c.FromAttribute {
			continue
		}
		if text := attributes[i].Value.Text(); Valid(text) {
			return text
		}
		break
	}
	return c.Default
}
