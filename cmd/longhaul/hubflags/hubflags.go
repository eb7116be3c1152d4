// Package hubflags gives every command that reaches the hub the same flags. What
// a flag does not say is taken from the environment variable that its help names,
// when the command runs: a URL may hold a password, which no help text shows.
package hubflags

import (
	"cmp"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/longhaul/longhaul/internal/hub"
)

// DefaultURL is that of a hub on this machine.
const DefaultURL = "nats://127.0.0.1:4222"

// Flags are a command's flags for the hub.
type Flags struct {
	// Timeout bounds what the command waits for.
	Timeout time.Duration

	given hub.Connection
}

// Add adds the flags.
func (f *Flags) Add(flags *pflag.FlagSet) {
	flags.DurationVar(&f.Timeout, "timeout", 30*time.Second, "how long to wait for the hub")
	flags.StringVar(&f.given.URLs, "url", "", "the hub; several servers with commas ($LONGHAUL_NATS_URL; default "+DefaultURL+")")
	flags.StringVar(&f.given.CredentialsFile, "credentials", "", "NATS credentials file ($LONGHAUL_NATS_CREDENTIALS)")
	flags.StringVar(&f.given.TLS.CAFile, "tls-ca", "", "PEM file of those who may sign the hub's certificate ($LONGHAUL_NATS_TLS_CA)")
	flags.StringVar(&f.given.TLS.CertFile, "tls-cert", "", "client certificate, PEM file ($LONGHAUL_NATS_TLS_CERT)")
	flags.StringVar(&f.given.TLS.KeyFile, "tls-key", "", "its key, PEM file ($LONGHAUL_NATS_TLS_KEY)")
}

// Connection is how to reach the hub, by flags and environment.
func (f *Flags) Connection() hub.Connection {
	c := f.given
	c.URLs = cmp.Or(c.URLs, os.Getenv("LONGHAUL_NATS_URL"), DefaultURL)
	c.CredentialsFile = cmp.Or(c.CredentialsFile, os.Getenv("LONGHAUL_NATS_CREDENTIALS"))
	c.TLS.CAFile = cmp.Or(c.TLS.CAFile, os.Getenv("LONGHAUL_NATS_TLS_CA"))
	c.TLS.CertFile = cmp.Or(c.TLS.CertFile, os.Getenv("LONGHAUL_NATS_TLS_CERT"))
	c.TLS.KeyFile = cmp.Or(c.TLS.KeyFile, os.Getenv("LONGHAUL_NATS_TLS_KEY"))
	return c
}
