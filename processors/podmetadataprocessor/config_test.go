package podmetadataprocessor

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/confmaptest"

	"github.com/longhaul/longhaul/internal/kubelet"
)

func load(t *testing.T, key string) *Config {
	t.Helper()
	conf, err := confmaptest.LoadConf(filepath.Join("testdata", "config.yaml"))
	require.NoError(t, err)
	section, err := conf.Sub(key)
	require.NoError(t, err)
	config := createDefaultConfig().(*Config)
	require.NoError(t, section.Unmarshal(config))
	return config
}

func TestConfig(t *testing.T) {
	require.NoError(t, componenttest.CheckConfigStruct(createDefaultConfig()))
	assert.Equal(t, createDefaultConfig(), load(t, "podmetadata"))
	assert.NoError(t, confmap.Validate(createDefaultConfig()))

	all := load(t, "podmetadata/all")
	assert.NoError(t, confmap.Validate(all))
	assert.Equal(t, &Config{
		Kubelet: kubelet.Config{
			URL:                "https://10.0.0.4:10250",
			TokenFile:          "/var/run/secrets/kubernetes.io/serviceaccount/token",
			CAFile:             "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
			InsecureSkipVerify: true,
			PollInterval:       time.Minute,
			CacheFile:          "/var/lib/longhaul/spool/pods.json",
		},
		Attributes:  []string{"k8s.deployment.name", "k8s.node.name"},
		Labels:      []Rule{{Key: "team"}, {Key: "app.kubernetes.io/part-of", Attribute: "app"}, {KeyRegex: `example\.com/(.+)`, Attribute: "example.$1"}},
		Annotations: []Rule{{KeyRegex: ".*owner"}},
		Service:     ServiceConfig{WellKnownLabels: true},
		Overwrite:   true,
	}, all)
}

func TestValidateNamesEveryBadKey(t *testing.T) {
	err := confmap.Validate(load(t, "podmetadata/bad"))
	require.Error(t, err)
	for _, key := range []string{
		"kubelet: url: ", "token_file: ", "poll_interval: ", "attributes[1]: ", "labels[0]: ", "labels[1]: ", "annotations[0]::key_regex: ",
	} {
		assert.ErrorContains(t, err, key)
	}
}
