package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

// operator is a NATS operator with one account for longhaul, and users in it.
type operator struct {
	dir        string
	account    nkeys.KeyPair
	configFile string // server configuration: operator, resolver, JetStream is the account's
}

func newOperator(t *testing.T, dir string) *operator {
	t.Helper()
	operatorKey, err := nkeys.CreateOperator()
	require.NoError(t, err)
	o := &operator{dir: dir, configFile: filepath.Join(dir, "operator.conf")}
	newAccount := func(name string, jetStream bool) (nkeys.KeyPair, string, string) {
		key, err := nkeys.CreateAccount()
		require.NoError(t, err)
		public, err := key.PublicKey()
		require.NoError(t, err)
		claims := jwt.NewAccountClaims(public)
		claims.Name = name
		if jetStream {
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
		}
		token, err := claims.Encode(operatorKey)
		require.NoError(t, err)
		return key, public, token
	}
	_, system, systemToken := newAccount("SYS", false)
	account, longhaul, longhaulToken := newAccount("longhaul", true)
	o.account = account

	operatorPublic, err := operatorKey.PublicKey()
	require.NoError(t, err)
	claims := jwt.NewOperatorClaims(operatorPublic)
	claims.Name, claims.SystemAccount = "longhaul-test", system
	operatorToken, err := claims.Encode(operatorKey)
	require.NoError(t, err)
	config := fmt.Sprintf("operator: %s\nsystem_account: %s\nresolver: MEMORY\nresolver_preload: {\n  %s: %s\n  %s: %s\n}\n",
		operatorToken, system, system, systemToken, longhaul, longhaulToken)
	require.NoError(t, os.WriteFile(o.configFile, []byte(config), 0o600))
	return o
}

// credentials writes a credentials file for a user of the account.
func (o *operator) credentials(t *testing.T, name string, publish, subscribe []string) string {
	t.Helper()
	key, err := nkeys.CreateUser()
	require.NoError(t, err)
	public, err := key.PublicKey()
	require.NoError(t, err)
	claims := jwt.NewUserClaims(public)
	claims.Name = name
	claims.Pub.Allow.Add(publish...)
	claims.Sub.Allow.Add(subscribe...)
	token, err := claims.Encode(o.account)
	require.NoError(t, err)
	seed, err := key.Seed()
	require.NoError(t, err)
	file, err := jwt.FormatUserConfig(token, seed)
	require.NoError(t, err)
	path := filepath.Join(o.dir, name+".creds")
	require.NoError(t, os.WriteFile(path, file, 0o600))
	return path
}

// edgeCredentials are what an edge is given: its own subjects and no others.
func (o *operator) edgeCredentials(t *testing.T, cluster, node string) string {
	t.Helper()
	origin := cluster + "." + node
	return o.credentials(t, "edge-"+cluster,
		[]string{"longhaul.frames.*." + origin, "longhaul.hello." + origin},
		[]string{"longhaul.custody." + origin, "_INBOX.>"})
}

// requireDelivery sends records to the collector and finds them in Loki.
func requireDelivery(t *testing.T, collector *lab.Collector, cluster string) {
	t.Helper()
	sent := sendRecords(t, collector, 100)
	requireRecords(t, cluster, sent, time.Minute)
	requireSpoolEmpties(t, collector) // custody came back, too
}

// requireRefused waits until the collector has logged the hub's reason for
// refusing it, and fails if anything of the cluster is in Loki all the same.
func requireRefused(t *testing.T, c *lab.Collector, cluster, reason string) {
	t.Helper()
	eventually(t, time.Minute, func() error {
		if strings.Contains(c.LogTail(1<<20), reason) {
			return nil
		}
		return fmt.Errorf("%s has not been told %q", cluster, reason)
	})
	time.Sleep(2 * time.Second) // twice what a delivery takes
	found, err := loki(t).Entries(t.Context(), fmt.Sprintf(`{cluster=%q}`, cluster), time.Now().Add(-time.Hour), time.Now().Add(time.Minute))
	require.NoError(t, err)
	require.Empty(t, found)
}

func TestCredentialsFilesAtBothEnds(t *testing.T) {
	dir := testDir(t)
	o := newOperator(t, dir)
	relay := newRelay(t, dir, map[string]string{
		"LONGHAUL_NATS_CONFIG":      o.configFile,
		"LONGHAUL_NATS_CREDENTIALS": o.credentials(t, "relay", []string{">"}, []string{">"}),
	})
	start(t, relay.Process)
	collector := newCollector(t, dir, "store-0011", relay.NATSURL, map[string]string{
		"LONGHAUL_NATS_CREDENTIALS": o.edgeCredentials(t, "store-0011", "node-a"),
	})
	start(t, collector.Process)
	requireDelivery(t, collector, "store-0011")

	say("an edge with another's credentials, and one with none")
	for _, edge := range []struct{ cluster, credentials, reason string }{
		{"store-0012", o.edgeCredentials(t, "store-0099", "node-a"), "Permissions Violation for Publish to \\\"longhaul.frames.logs.store-0012.node-a"},
		{"store-0013", "", "Authorization Violation"},
	} {
		refused := newCollector(t, filepath.Join(dir, edge.cluster), edge.cluster, relay.NATSURL, map[string]string{"LONGHAUL_NATS_CREDENTIALS": edge.credentials})
		start(t, refused.Process)
		sendRecords(t, refused, 10) // kept in its spool
		requireRefused(t, refused, edge.cluster, edge.reason)
	}
}

func TestTLSWithOwnAuthorityAndClientCertificates(t *testing.T) {
	dir := testDir(t)
	ca := newAuthority(t, dir)
	serverCert, serverKey := ca.issue(t, "hub")
	edgeCert, edgeKey := ca.issue(t, "edge")
	relay := newRelay(t, dir, map[string]string{
		"LONGHAUL_NATS_TLS_CA":   ca.file,
		"LONGHAUL_NATS_TLS_CERT": serverCert,
		"LONGHAUL_NATS_TLS_KEY":  serverKey,
	})
	start(t, relay.Process)
	url := "tls://" + relay.NATSAddr
	collector := newCollector(t, dir, "store-0021", url, map[string]string{
		"LONGHAUL_NATS_TLS_CA":   ca.file,
		"LONGHAUL_NATS_TLS_CERT": edgeCert,
		"LONGHAUL_NATS_TLS_KEY":  edgeKey,
	})
	start(t, collector.Process)
	requireDelivery(t, collector, "store-0021")

	say("an edge without a client certificate")
	refused := newCollector(t, filepath.Join(dir, "refused"), "store-0022", url, map[string]string{"LONGHAUL_NATS_TLS_CA": ca.file})
	start(t, refused.Process)
	sendRecords(t, refused, 10)
	requireRefused(t, refused, "store-0022", "the hub may want a client certificate")
}

func TestSecureWebSocket(t *testing.T) {
	dir := testDir(t)
	ca := newAuthority(t, dir)
	serverCert, serverKey := ca.issue(t, "hub")
	edgeCert, edgeKey := ca.issue(t, "edge")
	port, err := lab.FreePort()
	require.NoError(t, err)
	address := fmt.Sprintf("127.0.0.1:%d", port)
	relay := newRelay(t, dir, map[string]string{
		"LONGHAUL_NATS_WEBSOCKET_LISTEN": address,
		"LONGHAUL_NATS_TLS_CA":           ca.file,
		"LONGHAUL_NATS_TLS_CERT":         serverCert,
		"LONGHAUL_NATS_TLS_KEY":          serverKey,
	})
	start(t, relay.Process)
	collector := newCollector(t, dir, "store-0031", "wss://"+address, map[string]string{
		"LONGHAUL_NATS_TLS_CA":   ca.file,
		"LONGHAUL_NATS_TLS_CERT": edgeCert,
		"LONGHAUL_NATS_TLS_KEY":  edgeKey,
	})
	start(t, collector.Process)
	requireDelivery(t, collector, "store-0031")
}

// TestExternalHubWithEverything runs a NATS server of its own, as a user with a
// NATS cluster has one: credentials, TLS with client certificates and wss:// at
// both ends, relay and collector alike being its clients.
func TestExternalHubWithEverything(t *testing.T) {
	dir := testDir(t)
	o := newOperator(t, dir)
	ca := newAuthority(t, dir)
	serverCert, serverKey := ca.issue(t, "hub")
	natsPort, err := lab.FreePort()
	require.NoError(t, err)
	webSocketPort, err := lab.FreePort()
	require.NoError(t, err)
	startNATS(t, dir, fmt.Sprintf(`
listen: "127.0.0.1:%d"
server_name: hub
jetstream: {store_dir: %q}
tls: {cert_file: %q, key_file: %q, ca_file: %q, verify: true}
websocket: {listen: "127.0.0.1:%d", tls: {cert_file: %q, key_file: %q, ca_file: %q, verify: true}}
include %q
`, natsPort, filepath.Join(dir, "jetstream"), serverCert, serverKey, ca.file, webSocketPort, serverCert, serverKey, ca.file, filepath.Base(o.configFile)))

	urls := map[string]string{
		"tls": fmt.Sprintf("tls://127.0.0.1:%d", natsPort),
		"wss": fmt.Sprintf("wss://127.0.0.1:%d", webSocketPort),
	}
	client := func(name, credentials string) map[string]string {
		cert, key := ca.issue(t, name)
		return map[string]string{
			"LONGHAUL_NATS_CREDENTIALS": credentials,
			"LONGHAUL_NATS_TLS_CA":      ca.file, "LONGHAUL_NATS_TLS_CERT": cert, "LONGHAUL_NATS_TLS_KEY": key,
		}
	}
	relayEnv := client("relay", o.credentials(t, "relay", []string{">"}, []string{">"}))
	for i, scheme := range []string{"tls", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			relayEnv["LONGHAUL_NATS_URL"] = urls[scheme]
			relay := newRelay(t, filepath.Join(dir, scheme), relayEnv)
			start(t, relay.Process)
			cluster := fmt.Sprintf("store-004%d", i+1)
			collector := newCollector(t, filepath.Join(dir, scheme), cluster, urls[scheme], client(cluster, o.edgeCredentials(t, cluster, "node-a")))
			start(t, collector.Process)
			requireDelivery(t, collector, cluster)
		})
	}
}

// startNATS runs a NATS server inside the test.
func startNATS(t *testing.T, dir, config string) {
	t.Helper()
	file := filepath.Join(dir, "nats.conf")
	require.NoError(t, os.WriteFile(file, []byte(config), 0o600))
	options, err := server.ProcessConfigFile(file)
	require.NoError(t, err)
	options.NoSigs, options.NoLog = true, true
	s, err := server.NewServer(options)
	require.NoError(t, err)
	go s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	require.True(t, s.ReadyForConnections(20*time.Second), "the NATS server did not start")
}
