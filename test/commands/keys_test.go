package commands

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// printedKeys are the paths of everything print-config prints, joined with ::.
func printedKeys(t *testing.T, program string, environment []string) map[string]bool {
	t.Helper()
	command := exec.Command(program, "print-config")
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "LONGHAUL_") {
			command.Env = append(command.Env, entry)
		}
	}
	command.Env = append(command.Env, environment...)
	out, err := command.Output()
	require.NoError(t, err)
	var config map[string]any
	require.NoError(t, yaml.Unmarshal(out, &config))
	keys := map[string]bool{}
	collect(keys, "", config)
	return keys
}

func collect(keys map[string]bool, path string, value any) {
	keys[path] = true
	section, ok := value.(map[string]any)
	if !ok {
		return
	}
	if path != "" {
		path += "::"
	}
	for key, value := range section {
		collect(keys, path+key, value)
	}
}
