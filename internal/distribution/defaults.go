package distribution

import (
	"context"
	"fmt"
	"os"

	"go.opentelemetry.io/collector/confmap"
)

// DefaultURI names the embedded default configuration, so that it can be laid
// under a user's own: --config longhaul:default --config extra.yaml.
const DefaultURI = scheme + ":default"

const scheme = "longhaul"

// SetupError says what an operator has to set before the default configuration
// can be used. It is printed without the chain of callers that met it.
type SetupError struct{ Message string }

func (e *SetupError) Error() string { return e.Message }

// defaultsProvider serves DefaultURI from the layers the distribution embeds.
type defaultsProvider struct {
	layers func() ([][]byte, error)
}

func newDefaultsFactory(layers func() ([][]byte, error)) confmap.ProviderFactory {
	return confmap.NewProviderFactory(func(confmap.ProviderSettings) confmap.Provider {
		return &defaultsProvider{layers: layers}
	})
}

// Retrieve implements confmap.Provider. Later layers win over earlier ones:
// maps are merged, lists replaced.
func (p *defaultsProvider) Retrieve(_ context.Context, uri string, _ confmap.WatcherFunc) (*confmap.Retrieved, error) {
	if uri != DefaultURI {
		return nil, fmt.Errorf("%q: the only built-in configuration is %q", uri, DefaultURI)
	}
	layers, err := p.layers()
	if err != nil {
		return nil, err
	}
	merged := confmap.New()
	for _, layer := range layers {
		retrieved, err := confmap.NewRetrievedFromYAML(layer)
		if err != nil {
			return nil, err
		}
		conf, err := retrieved.AsConf()
		if err != nil {
			return nil, err
		}
		if err := merged.Merge(conf); err != nil {
			return nil, err
		}
	}
	return confmap.NewRetrieved(merged.ToStringMap())
}

// Scheme implements confmap.Provider.
func (*defaultsProvider) Scheme() string { return scheme }

// Shutdown implements confmap.Provider.
func (*defaultsProvider) Shutdown(context.Context) error { return nil }

// Require returns a SetupError when an environment variable that the default
// configuration cannot do without is missing.
func Require(name, what string) error {
	if os.Getenv(name) != "" {
		return nil
	}
	return &SetupError{Message: fmt.Sprintf(
		"%s is not set: the default configuration needs %s. Set it (for example %s=store-0001), or pass your own configuration with --config",
		name, what, name)}
}
