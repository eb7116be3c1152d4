package distribution

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

// What upstream wraps around every problem with a configuration, and its way of
// saying that a file is not YAML or holds no keys.
const (
	gettingConfig   = "failed to get config: "
	resolvingConfig = "cannot resolve the configuration: "
	notAMap         = " cannot be used as a Conf"
	notAMapText     = "retrieved value (type=string)"
	notYAML         = ": assuming string type since contents are not valid YAML: "
)

// message makes one line for a person out of an error: upstream errors carry
// line breaks, lists and their own history, and do not name the file.
func message(err error, configs string) string {
	var setup *SetupError
	if errors.As(err, &setup) {
		return setup.Message
	}
	text := oneLine(err.Error())
	rest, found := strings.CutPrefix(text, gettingConfig)
	if !found {
		return text
	}
	rest = strings.TrimPrefix(rest, resolvingConfig)
	if what, problem, found := strings.Cut(rest, notAMap); found {
		if problem, found := strings.CutPrefix(problem, notYAML); found {
			rest = "not valid YAML: " + strings.TrimPrefix(problem, "yaml: ")
		} else if strings.HasSuffix(what, notAMapText) {
			rest = "not a configuration: it holds text and no keys"
		} else {
			rest = "not a configuration: it holds a list or a value and no keys"
		}
	}
	return "configuration " + configs + ": " + rest
}

// oneLine joins lines: each is a problem of its own, unless a colon ends the
// one before.
func oneLine(text string) string {
	var line strings.Builder
	for part := range strings.Lines(text) {
		part = strings.Join(strings.Fields(part), " ")
		if part == "" {
			continue
		}
		if line.Len() > 0 {
			if !strings.HasSuffix(line.String(), ":") {
				line.WriteByte(';')
			}
			line.WriteByte(' ')
		}
		line.WriteString(part)
	}
	return line.String()
}

// configNames lists what --config named, for messages.
func configNames(command *cobra.Command) string {
	flag := command.Flags().Lookup("config")
	if flag == nil {
		return ""
	}
	return strings.Trim(flag.Value.String(), "[]")
}
