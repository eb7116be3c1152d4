package kubelet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
)

// Config says how to reach the node's kubelet. Equal Configs share one Source.
type Config struct {
	// URL of the kubelet, without a path: https://<address of the node>:10250, or
	// http://<address>:10255 for the read-only port. Empty: there is no kubelet,
	// and no pod is known.
	URL string `mapstructure:"url"`
	// TokenFile holds the token to show, for HTTPS; read again for each request,
	// because tokens of service accounts are renewed. Empty: none.
	TokenFile string `mapstructure:"token_file"`
	// CAFile holds the certificates that may sign the kubelet's, PEM; read again
	// when it changes. Empty: the system's.
	CAFile string `mapstructure:"ca_file"`
	// InsecureSkipVerify takes any certificate: whoever answers at URL gets the
	// token. For kubelets that sign their own.
	InsecureSkipVerify bool `mapstructure:"insecure_skip_verify"`
	// PollInterval is the time between two requests, 5s to 10m.
	PollInterval time.Duration `mapstructure:"poll_interval"`
	// CacheFile keeps what is known across restarts. Empty: it is not kept.
	CacheFile string `mapstructure:"cache_file"`

	// prevent unkeyed literal initialization
	_ struct{}
}

const (
	defaultPollInterval = 30 * time.Second
	minPollInterval     = 5 * time.Second
	maxPollInterval     = 10 * time.Minute
)

// DefaultConfig has no URL: there is no kubelet.
func DefaultConfig() Config { return Config{PollInterval: defaultPollInterval} }

// Validate reports every problem by its key.
func (c *Config) Validate() error {
	var problems []error
	report := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.URL != "" {
		if _, err := c.base(); err != nil {
			report("url: %w", err)
		}
	}
	for _, file := range []struct{ key, path string }{{"token_file", c.TokenFile}, {"ca_file", c.CAFile}, {"cache_file", c.CacheFile}} {
		if file.path != "" && !filepath.IsAbs(file.path) {
			report("%s: %q must be an absolute path", file.key, file.path)
		}
	}
	if c.PollInterval < minPollInterval || c.PollInterval > maxPollInterval {
		report("poll_interval: %s is not between %s and %s", c.PollInterval, minPollInterval, maxPollInterval)
	}
	return errors.Join(problems...)
}

// base parses URL. An IPv6 address without brackets, as $(NODE_IP) of a pod
// gives it, is understood.
func (c *Config) base() (*url.URL, error) {
	scheme, rest, found := strings.Cut(c.URL, "://")
	if !found || scheme != "http" && scheme != "https" {
		return nil, fmt.Errorf("%q must begin with https:// or http://", c.URL)
	}
	rest = strings.TrimSuffix(rest, "/")
	if i := strings.LastIndexByte(rest, ':'); i > 0 && strings.Count(rest, ":") > 1 && rest[0] != '[' {
		if ip, err := netip.ParseAddr(rest[:i]); err == nil && ip.Is6() {
			rest = net.JoinHostPort(rest[:i], rest[i+1:])
		}
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil {
		return nil, err
	}
	if u.Hostname() == "" || u.Port() == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, fmt.Errorf("%q is not of the form https://<address>:<port>", c.URL)
	}
	return u, nil
}

// Address is the scheme and the host:port of URL.
func (c *Config) Address() (scheme, hostPort string, err error) {
	u, err := c.base()
	if err != nil {
		return "", "", err
	}
	return u.Scheme, u.Host, nil
}
