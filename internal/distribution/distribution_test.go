package distribution

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMessageIsOneLineAndNamesTheConfiguration(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"not YAML": {
			errors.New("failed to get config: cannot resolve the configuration: retrieved value (type=string) cannot be used as a Conf: assuming string type since contents are not valid YAML: yaml: line 2: did not find expected key"),
			"configuration a.yaml: not valid YAML: line 2: did not find expected key",
		},
		"a word": {
			errors.New("failed to get config: cannot resolve the configuration: retrieved value (type=string) cannot be used as a Conf"),
			"configuration a.yaml: not a configuration: it holds text and no keys",
		},
		"a list": {
			errors.New("failed to get config: cannot unmarshal the configuration: decoding failed due to the following error(s):\n\n'service' has invalid keys: x\n"),
			"configuration a.yaml: cannot unmarshal the configuration: decoding failed due to the following error(s): 'service' has invalid keys: x",
		},
		"a list for a map": {
			errors.New("failed to get config: cannot resolve the configuration: retrieved value (type=[]interface {}) cannot be used as a Conf"),
			"configuration a.yaml: not a configuration: it holds a list or a value and no keys",
		},
		"two problems": {
			errors.New("invalid configuration: exporters::nats: cluster: must be set\nnode: must be set\n"),
			"invalid configuration: exporters::nats: cluster: must be set; node: must be set",
		},
		"setup": {
			fmt.Errorf("failed to get config: %w", fmt.Errorf("cannot retrieve: %w", &SetupError{Message: "X is not set"})),
			"X is not set",
		},
		"other": {errors.New("unknown flag: --x"), "unknown flag: --x"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, message(test.err, "a.yaml"))
		})
	}
}

// A pod that is deleted while it starts must not be killed in the middle of it.
func TestSignalDuringStartIsHeardAfterIt(t *testing.T) {
	defer holdSignals()()
	self, err := os.FindProcess(os.Getpid())
	require.NoError(t, err)
	require.NoError(t, self.Signal(syscall.SIGTERM)) // nobody else listens yet

	late := make(chan os.Signal, 1)
	time.Sleep(3 * repeatSignal)
	signal.Notify(late, syscall.SIGTERM)
	defer signal.Stop(late)
	require.Equal(t, syscall.SIGTERM, <-late)
}

func TestLaterLayersWin(t *testing.T) {
	provider := &defaultsProvider{layers: func() ([][]byte, error) {
		return [][]byte{
			[]byte("a: {b: 1, c: [1, 2], d: \"${env:X:-y}\"}"),
			[]byte("a: {b: 2, c: [3]}\ne: f"),
		}, nil
	}}
	retrieved, err := provider.Retrieve(context.Background(), DefaultURI, nil)
	require.NoError(t, err)
	raw, err := retrieved.AsRaw()
	require.NoError(t, err)
	require.Equal(t, map[string]any{
		"a": map[string]any{"b": 2, "c": []any{3}, "d": "${env:X:-y}"},
		"e": "f",
	}, raw)

	_, err = provider.Retrieve(context.Background(), "longhaul:other", nil)
	require.ErrorContains(t, err, DefaultURI)
}

func TestEmptyVariablesAreUnset(t *testing.T) {
	t.Setenv("LONGHAUL_TEST_EMPTY", "")
	t.Setenv("LONGHAUL_TEST_FULL", "x")
	t.Setenv("OTHER_TEST_EMPTY", "")
	clearEmpty()
	_, found := os.LookupEnv("LONGHAUL_TEST_EMPTY")
	require.False(t, found)
	_, found = os.LookupEnv("LONGHAUL_TEST_FULL")
	require.True(t, found)
	_, found = os.LookupEnv("OTHER_TEST_EMPTY")
	require.True(t, found, "other programs' variables are left alone")
}

func TestMemorySettingsGiveWayToTheOperators(t *testing.T) {
	program := Program{MemoryLimitBytes: 1 << 30, GCPercent: 50}
	limit := debug.SetMemoryLimit(-1)
	percent := debug.SetGCPercent(100)
	t.Cleanup(func() { debug.SetMemoryLimit(limit); debug.SetGCPercent(percent) })

	t.Setenv("GOMEMLIMIT", "2GiB")
	t.Setenv("GOGC", "200")
	program.tuneMemory()
	require.Equal(t, limit, debug.SetMemoryLimit(-1))
	require.Equal(t, 100, debug.SetGCPercent(100))

	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "")
	program.tuneMemory()
	require.EqualValues(t, 1<<30, debug.SetMemoryLimit(-1))
	require.Equal(t, 50, debug.SetGCPercent(100))
}
