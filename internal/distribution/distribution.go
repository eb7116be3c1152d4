// Package distribution turns a list of OpenTelemetry Collector components and
// an embedded default configuration into a program: longhaul-collector and
// longhaul-relay differ only in those two.
//
// The program is the upstream collector command (run, validate, components,
// print-config, featuregate; --config, --set, --feature-gates) with three
// differences. Without --config it runs the embedded configuration, which can
// also be named as longhaul:default and have other files laid over it. An
// empty LONGHAUL_… environment variable counts as not set, because manifests
// often carry empty values. And an error ends the program with one line on
// standard error and exit status 1.
package distribution

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/confmap"
	"go.opentelemetry.io/collector/confmap/provider/envprovider"
	"go.opentelemetry.io/collector/confmap/provider/fileprovider"
	"go.opentelemetry.io/collector/confmap/provider/yamlprovider"
	"go.opentelemetry.io/collector/otelcol"
	"go.uber.org/zap"

	"github.com/longhaul/longhaul/internal/version"
)

// EnvironmentPrefix starts the name of every variable the default
// configurations read.
const EnvironmentPrefix = "LONGHAUL_"

// Program describes one distribution.
type Program struct {
	Name        string // of the binary
	Description string // one sentence
	Components  Components
	// Defaults returns the layers of the embedded configuration, the strongest
	// last. It is called when that configuration is used and not before, and
	// returns a *SetupError when the environment lacks something.
	Defaults func() ([][]byte, error)
	// Environment prepares defaults that only the machine knows (a host name)
	// before anything reads the environment. May be nil.
	Environment func()
	// Converters change a configuration after it was read. May be nil.
	Converters []confmap.ConverterFactory
	// MemoryLimitBytes and GCPercent steer the garbage collector unless the
	// operator did with GOMEMLIMIT or GOGC. 0 leaves Go's own defaults.
	MemoryLimitBytes int64
	GCPercent        int
}

// Main runs the program and returns its exit status.
func (p Program) Main() int {
	clearEmpty()
	if p.Environment != nil {
		p.Environment()
	}
	p.tuneMemory()
	command := p.command()
	ran, err := command.ExecuteContextC(context.Background())
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %s\n", p.Name, message(err, configNames(ran)))
		return 1
	}
	return 0
}

func (p Program) command() *cobra.Command {
	root := otelcol.NewCommand(otelcol.CollectorSettings{
		BuildInfo: component.BuildInfo{
			Command:     p.Name,
			Description: p.Description,
			Version:     version.String(),
		},
		Factories:      p.Components.factories,
		LoggingOptions: []zap.Option{logOnce()},
		ConfigProviderSettings: otelcol.ConfigProviderSettings{
			ResolverSettings: confmap.ResolverSettings{
				ProviderFactories: []confmap.ProviderFactory{
					envprovider.NewFactory(),
					fileprovider.NewFactory(),
					yamlprovider.NewFactory(),
					newDefaultsFactory(p.Defaults),
				},
				ConverterFactories: p.Converters,
			},
		},
		ProviderModules: map[string]string{
			"env":  "go.opentelemetry.io/collector/confmap/provider/envprovider",
			"file": "go.opentelemetry.io/collector/confmap/provider/fileprovider",
			"yaml": "go.opentelemetry.io/collector/confmap/provider/yamlprovider",
			scheme: "github.com/longhaul/longhaul/internal/distribution",
		},
	})
	root.Short = p.Description
	root.Long = p.Description + "\n\nWithout --config it runs its built-in configuration, which " +
		EnvironmentPrefix + "… environment variables steer\n(docs/configuration.md; see it with print-config). " +
		"--config " + DefaultURI + " --config more.yaml lays a file over it."
	root.Args = cobra.NoArgs
	root.SilenceErrors = true // Main prints the one line
	for _, command := range append(root.Commands(), root) {
		if command.Flags().Lookup("config") != nil {
			command.PreRunE = useDefaults
		}
	}
	run := root.RunE
	root.RunE = func(command *cobra.Command, args []string) error {
		defer holdSignals()()
		return run(command, args)
	}
	return root
}

// useDefaults names the embedded configuration when the user named none. A
// default in the resolver's settings would not do: a lone --set would replace it.
func useDefaults(command *cobra.Command, _ []string) error {
	if command.Flags().Changed("config") {
		return nil
	}
	return command.Flags().Set("config", DefaultURI)
}

// clearEmpty makes an empty variable one that is not set, so that the default
// behind ${env:NAME:-default} applies.
func clearEmpty() {
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		if value == "" && strings.HasPrefix(name, EnvironmentPrefix) {
			_ = os.Unsetenv(name)
		}
	}
}

// tuneMemory applies the program's settings for the garbage collector where
// the environment has none of its own.
func (p Program) tuneMemory() {
	if p.MemoryLimitBytes > 0 && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(p.MemoryLimitBytes)
	}
	if p.GCPercent > 0 && os.Getenv("GOGC") == "" {
		debug.SetGCPercent(p.GCPercent)
	}
}
