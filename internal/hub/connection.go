package hub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/collector/config/configtls"
	"go.uber.org/zap"
)

// Why these and not the client's defaults: the defaults give up after 60
// reconnects or two authorization errors, fail at start when the server is
// away, notice a dead link after four minutes, and keep 8 MiB in memory that a
// power cut loses. The spool is the buffer.
const (
	connectTimeout   = 20 * time.Second
	pingInterval     = 20 * time.Second
	maxPingsOut      = 2
	reconnectWaitMin = 500 * time.Millisecond
	reconnectWaitMax = 15 * time.Second
	dialTimeout      = 5 * time.Second // of a command, per server
)

// Connection says how to reach the hub. It is embedded in the configuration of
// the nats exporter and the nats receiver.
type Connection struct {
	// URLs is one server or several, comma separated: nats://, tls://, ws:// or wss://.
	URLs string `mapstructure:"urls"`
	// CredentialsFile is a NATS credentials file (user JWT and seed); read at every
	// connect, so a renewed file needs no restart. Empty: none.
	CredentialsFile string `mapstructure:"credentials_file"`
	// TLS is used when a URL is tls:// or wss://, when a CA or client certificate is
	// given, or when the server asks for it.
	TLS configtls.ClientConfig `mapstructure:"tls"`
}

// Check reports every problem with its key. It is not called Validate because the
// receiver embeds a Connection that is not used when the hub is in its process.
func (c *Connection) Check() error {
	var problems []error
	if len(c.servers()) == 0 {
		problems = append(problems, errors.New("urls: must name at least one NATS server, for example nats://hub.example:4222"))
	}
	sockets, web := 0, 0
	for _, text := range c.servers() {
		parsed, err := url.Parse(text)
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("urls: cannot be read; write scheme://host:port (%w)", innermost(err)))
		case parsed.Host == "":
			problems = append(problems, fmt.Errorf("urls: %q has no host; write scheme://host:port", withoutUser(text)))
		default:
			switch parsed.Scheme {
			case "nats", "tls":
				sockets++
			case "ws", "wss":
				web++
			default:
				problems = append(problems, fmt.Errorf("urls: %q: scheme must be nats, tls, ws or wss", withoutUser(text)))
			}
			if port := parsed.Port(); port != "" {
				if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
					problems = append(problems, fmt.Errorf("urls: %q: the port must be between 1 and 65535", withoutUser(text)))
				}
			}
		}
	}
	if sockets > 0 && web > 0 {
		problems = append(problems, errors.New("urls: ws:// and wss:// cannot stand beside nats:// and tls://; name servers of one kind"))
	}
	return errors.Join(problems...)
}

func (c *Connection) servers() []string {
	var servers []string
	for text := range strings.SplitSeq(c.URLs, ",") {
		if text = strings.TrimSpace(text); text != "" {
			servers = append(servers, text)
		}
	}
	return servers
}

// Address is the servers for people to read: without the users, passwords and
// tokens that URLs may hold.
func (c *Connection) Address() string { return strings.Join(withoutUsers(c.servers()), ",") }

func withoutUsers(servers []string) []string {
	plain := make([]string, len(servers))
	for i, text := range servers {
		plain[i] = withoutUser(text)
	}
	return plain
}

func withoutUser(text string) string {
	parsed, err := url.Parse(text)
	if err != nil {
		return "an address that cannot be read"
	}
	parsed.User = nil
	return parsed.String()
}

func (c *Connection) wantsTLS() bool {
	if c.TLS.CAFile != "" || c.TLS.CertFile != "" || c.TLS.CAPem != "" || c.TLS.CertPem != "" {
		return true
	}
	for _, server := range c.servers() {
		if strings.HasPrefix(server, "tls://") || strings.HasPrefix(server, "wss://") {
			return true
		}
	}
	return false
}

// Events are told about a connection's life. Fields may be nil.
type Events struct {
	// Connected is called after the first and every later connect.
	Connected func()
	// Disconnected is called when the link is lost.
	Disconnected func()
}

// Connect returns at once with a connection that goes on trying until it is
// closed, whether or not the hub is there. An error means the settings cannot
// work (an unreadable credentials or CA file, say). inProcess, when not nil, is used instead of
// the URLs.
func (c *Connection) Connect(ctx context.Context, name string, inProcess nats.InProcessConnProvider, events Events, log *zap.Logger) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.IgnoreAuthErrorAbort(),
		nats.Timeout(connectTimeout),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(maxPingsOut),
		nats.ReconnectBufSize(-1),
		nats.CustomReconnectDelay(reconnectDelay),
		nats.ConnectHandler(func(nc *nats.Conn) {
			log.Info("connected to the hub", zap.String("server", nc.ConnectedUrlRedacted()))
			call(events.Connected)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("connected to the hub again", zap.String("server", nc.ConnectedUrlRedacted()))
			call(events.Connected)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the link to the hub is down; data is kept on disk and the connection retried", zap.Error(err))
			}
			call(events.Disconnected)
		}),
		nats.ReconnectErrHandler(reportConnectErrors(log, c.TLS.CertFile != "" || c.TLS.CertPem != "")),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			fields := []zap.Field{zap.Error(err)}
			if sub != nil {
				fields = append(fields, zap.String("subject", sub.Subject))
			}
			log.Warn("the hub reported an error", fields...)
		}),
	}
	if c.CredentialsFile != "" {
		// The client would give up at its first connect, with less to say.
		if _, err := os.ReadFile(c.CredentialsFile); err != nil {
			return nil, fmt.Errorf("credentials_file: %w: put the hub's credentials there, or leave the key empty if the hub wants none", err)
		}
		options = append(options, nats.UserCredentials(c.CredentialsFile))
	}
	if inProcess != nil {
		return nats.Connect("", append(options, nats.InProcessServer(inProcess))...)
	}
	tlsConfig, err := c.TLS.LoadTLSConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if c.wantsTLS() {
		options = append(options, nats.Secure(tlsConfig))
	}
	return nats.Connect(strings.Join(c.servers(), ","), options...)
}

// Dial connects for a command that a person waits for: every server is tried once,
// and the error says why none could be had.
func (c *Connection) Dial(ctx context.Context, name string) (*nats.Conn, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	options := []nats.Option{nats.Name(name), nats.NoReconnect(), nats.Timeout(dialTimeout)}
	if c.CredentialsFile != "" {
		if _, err := os.ReadFile(c.CredentialsFile); err != nil {
			return nil, fmt.Errorf("credentials: %w", err)
		}
		options = append(options, nats.UserCredentials(c.CredentialsFile))
	}
	tlsConfig, err := c.TLS.LoadTLSConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	if c.wantsTLS() {
		options = append(options, nats.Secure(tlsConfig))
	}
	nc, err := nats.Connect(strings.Join(c.servers(), ","), options...)
	switch {
	case err == nil:
		return nc, nil
	case errors.Is(err, nats.ErrAuthorization):
		return nil, fmt.Errorf("the hub at %s refuses these credentials: %w", c.Address(), err)
	}
	return nil, fmt.Errorf("the hub at %s cannot be reached: %w: is it running, and is this the right address?", c.Address(), err)
}

func call(f func()) {
	if f != nil {
		f()
	}
}

// reportInterval is how often a hub that cannot be reached is logged, per cause.
const reportInterval = time.Minute

// reportConnectErrors logs the first failure of each cause and then one line a
// minute, so that a day without a link does not fill the node's disk with log
// lines. Per cause, because the first is often not the one that tells: a server
// that refuses a client's certificate may be heard of as a reset connection first.
func reportConnectErrors(log *zap.Logger, certificate bool) nats.ConnErrHandler {
	told := make(map[string]time.Time) // handlers of one connection are called one after another
	return func(nc *nats.Conn, err error) {
		now := time.Now()
		maps.DeleteFunc(told, func(_ string, at time.Time) bool { return now.Sub(at) >= reportInterval })
		why := innermost(err).Error()
		if _, known := told[why]; known {
			return
		}
		told[why] = now
		fields := []zap.Field{zap.Strings("servers", withoutUsers(nc.Servers())), zap.Error(err)}
		if !certificate && refusedInHandshake(err) {
			fields = append(fields, zap.String("check", "the hub may want a client certificate and none is configured: tls::cert_file and tls::key_file"))
		}
		log.Warn("the hub cannot be reached; data is kept on disk and the connection retried", fields...)
	}
}

// refusedInHandshake says that a server may have ended a connection for want of a
// client certificate. With TLS 1.3 a client has shaken hands by then: it reads the
// server's alert, or finds the connection closed first.
func refusedInHandshake(err error) bool {
	text := err.Error()
	return slices.ContainsFunc([]string{"certificate required", "bad certificate", "handshake failure", "closed by remote after TLS handshake"},
		func(part string) bool { return strings.Contains(text, part) })
}

// innermost is the error without the addresses and ports of this one attempt.
func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// reconnectDelay grows from 0.5 s to 15 s, with jitter so that a fleet whose
// hub restarts does not come back in one moment.
func reconnectDelay(attempts int) time.Duration {
	wait := reconnectWaitMax
	if attempts < 5 {
		wait = reconnectWaitMin << attempts
	}
	return wait/2 + rand.N(wait/2+1)
}
