package tenant

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/confmap"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

type outer struct {
	Tenant Config `mapstructure:"tenant"`
}

func read(t *testing.T, value any) Config {
	t.Helper()
	o := outer{DefaultConfig()}
	require.NoError(t, confmap.NewFromStringMap(map[string]any{"tenant": value}).Unmarshal(&o))
	return o.Tenant
}

func TestAPlainStringIsTheDefault(t *testing.T) {
	require.Equal(t, Config{Default: "restaurants", Header: Header}, read(t, "restaurants"))
	require.Equal(t, Config{FromAttribute: "a", Default: "b", Header: "X-T"},
		read(t, map[string]any{"from_attribute": "a", "default": "b", "header": "X-T"}))
	require.Equal(t, Config{FromAttribute: "a", Header: Header}, read(t, map[string]any{"from_attribute": "a"}))
}

func TestAResourceBelongsToTheTenantOfItsAttribute(t *testing.T) {
	cfg := Config{FromAttribute: "k8s.cluster.name", Default: "rest", Header: Header}
	of := func(value string) string {
		name := cfg.Of([]otlpwire.Attribute{{Key: "k8s.cluster.name", Value: otlpwire.TextValue(value)}})
		require.Equal(t, name, cfg.Of([]otlpwire.Attribute{
			{Key: "k8s.node.name", Value: otlpwire.TextValue("n")},
			{Key: "k8s.cluster.name", Value: otlpwire.TextValue(value)},
			{Key: "k8s.cluster.name", Value: otlpwire.TextValue("of two the first counts")},
		}))
		return name
	}
	require.Equal(t, "store-0001", of("store-0001"))
	for _, bad := range []string{"", "a\r\nb", "a/b", "a|b", ".", "..", "ü", "a b", string(make([]byte, 151))} {
		require.Equal(t, "rest", of(bad), "%q", bad)
	}
	require.Equal(t, "rest", cfg.Of([]otlpwire.Attribute{}))
	require.Equal(t, "rest", cfg.Of(nil))
	none := DefaultConfig()
	require.Empty(t, none.Of(nil))
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	good := DefaultConfig()
	require.NoError(t, good.Validate())
	bad := Config{Default: "a/b", Header: "no header"}
	require.ErrorContains(t, bad.Validate(), "default:")
	require.ErrorContains(t, bad.Validate(), "header:")
	own := Config{Header: "content-type"}
	require.ErrorContains(t, own.Validate(), "header:")
}
