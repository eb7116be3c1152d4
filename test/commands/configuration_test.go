package commands

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const documentation = "../../docs/configuration.md"

// TestDocumentedVariables compares the tables of docs/configuration.md with the
// built-in configurations: every variable in its table, no other, and the
// default as the configuration has it.
func TestDocumentedVariables(t *testing.T) {
	for program, files := range map[string][]string{
		"longhaul-collector": {"../../collector/config.yaml", "../../collector/kubelet.yaml"},
		"longhaul-relay":     {"../../relay/config/relay.yaml", "../../relay/config/embedded-hub.yaml", "../../relay/config/external-hub.yaml"},
	} {
		t.Run(program, func(t *testing.T) {
			used, documented := variablesOf(t, files), documentedVariables(t, program)
			require.NotEmpty(t, used)
			for name, value := range used {
				row, found := documented[name]
				if !found {
					t.Errorf("%s is used in %v and not documented", name, files)
				} else if value != "" && !strings.HasPrefix(row, "`"+value+"`") {
					t.Errorf("%s: the configuration's default is %q, documented is %q", name, value, row)
				} else if value == "" && strings.HasPrefix(row, "`") {
					t.Errorf("%s: documented default %s, the configuration has none", name, row)
				}
			}
			for name := range documented {
				if _, found := used[name]; !found {
					t.Errorf("%s is documented and not used in %v", name, files)
				}
			}
		})
	}
}

// TestDocumentedKeysExist checks the tables' last column against what
// print-config prints.
func TestDocumentedKeysExist(t *testing.T) {
	// Upstream's TLS keys are printed when they have a value.
	kubelet := []string{"LONGHAUL_KUBELET_URL=https://10.0.0.4:10250"}
	tls := []string{"LONGHAUL_NATS_TLS_CA=/ca.pem", "LONGHAUL_NATS_TLS_CERT=/crt.pem", "LONGHAUL_NATS_TLS_KEY=/key.pem"}
	for program, environments := range map[string][][]string{
		"longhaul-collector": {append(append(tls, "LONGHAUL_CLUSTER=store-0001"), kubelet...)},
		"longhaul-relay":     {tls, append(tls, "LONGHAUL_NATS_URL=tls://nats.example:4222")},
	} {
		t.Run(program, func(t *testing.T) {
			printed := map[string]bool{}
			for _, environment := range environments {
				for key := range printedKeys(t, program, environment) {
					printed[key] = true
				}
			}
			section := documentedSection(t, program)
			keys := regexp.MustCompile("`([a-z_]+::[^`]+)`").FindAllStringSubmatch(section, -1)
			require.NotEmpty(t, keys)
			for _, key := range keys {
				if !printed[key[1]] {
					t.Errorf("%s is documented and not a key of the configuration", key[1])
				}
			}
		})
	}
}

var reference = regexp.MustCompile(`\$\{env:([A-Z_]+)(?::-([^}]*))?\}`)

func variablesOf(t *testing.T, files []string) map[string]string {
	t.Helper()
	variables := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, match := range reference.FindAllStringSubmatch(line, -1) {
				name, value := match[1], match[2]
				if earlier, found := variables[name]; found && earlier != value {
					t.Errorf("%s has two defaults, %q and %q", name, earlier, value)
				}
				variables[name] = value
			}
		}
	}
	return variables
}

var row = regexp.MustCompile("(?m)^\\| `(LONGHAUL_[A-Z_]+)` \\| ([^|]*) \\|")

func documentedVariables(t *testing.T, program string) map[string]string {
	t.Helper()
	variables := map[string]string{}
	for _, match := range row.FindAllStringSubmatch(documentedSection(t, program), -1) {
		if _, found := variables[match[1]]; found {
			t.Errorf("%s is documented twice", match[1])
		}
		variables[match[1]] = match[2]
	}
	return variables
}

func documentedSection(t *testing.T, program string) string {
	t.Helper()
	text, err := os.ReadFile(documentation)
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "\n## "+program+"\n")
	require.True(t, found, "a section for %s", program)
	section, _, _ = strings.Cut(section, "\n## ")
	return section
}
