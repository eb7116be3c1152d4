package hubextension

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/component/componenttest"
	"go.uber.org/zap"
)

func TestClientCertificatesAreRequiredAndChecked(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	config := testConfig(t)
	config.TLS.CertFile, config.TLS.KeyFile = ca.issue(t, "hub")
	config.TLS.ClientCAFile = ca.file
	config.Websocket.Listen = freeAddress(t)
	config.Websocket.TLS = config.TLS
	h := startHub(t, config)

	edgeCert, edgeKey := ca.issue(t, "edge")
	strangeCert, strangeKey := stranger.issue(t, "edge")
	for name, url := range map[string]string{
		"tls": "tls://" + h.server.Load().Addr().String(),
		"wss": "wss://" + config.Websocket.Listen,
	} {
		t.Run(name, func(t *testing.T) {
			nc := connect(t, url, nats.RootCAs(ca.file), nats.ClientCert(edgeCert, edgeKey))
			require.NoError(t, nc.Flush())

			_, err := nats.Connect(url, nats.RootCAs(ca.file), nats.Timeout(5*time.Second))
			require.Error(t, err, "without a certificate")
			_, err = nats.Connect(url, nats.RootCAs(ca.file), nats.ClientCert(strangeCert, strangeKey), nats.Timeout(5*time.Second))
			require.Error(t, err, "with a certificate of another authority")
			_, err = nats.Connect(url, nats.RootCAs(stranger.file), nats.ClientCert(edgeCert, edgeKey), nats.Timeout(5*time.Second))
			require.ErrorContains(t, err, "unknown authority")
		})
	}
	// The relay itself needs no certificate.
	require.NoError(t, connect(t, "", nats.InProcessServer(h)).Flush())
}

func TestUnreadableCertificates(t *testing.T) {
	ca := newAuthority(t)
	config := testConfig(t)
	config.TLS.CertFile, config.TLS.KeyFile = ca.issue(t, "hub")
	config.TLS.ClientCAFile = config.TLS.KeyFile // holds no certificate
	err := newHub(config, zap.NewNop()).Start(t.Context(), componenttest.NewNopHost())
	require.ErrorContains(t, err, "tls: client_ca_file: no certificate in "+config.TLS.KeyFile)

	config.TLS.CertFile = filepath.Join(t.TempDir(), "absent.crt")
	err = newHub(config, zap.NewNop()).Start(t.Context(), componenttest.NewNopHost())
	require.ErrorContains(t, err, "absent.crt")
}

// authority signs certificates for 127.0.0.1.
type authority struct {
	file        string
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	certificate, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{file: writePEM(t, "CERTIFICATE", der), certificate: certificate, key: key}
}

func (a *authority) issue(t *testing.T, name string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, key.Public(), a.key)
	require.NoError(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return writePEM(t, "CERTIFICATE", der), writePEM(t, "PRIVATE KEY", private)
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "*.pem")
	require.NoError(t, err)
	require.NoError(t, pem.Encode(file, &pem.Block{Type: kind, Bytes: der}))
	require.NoError(t, file.Close())
	return file.Name()
}
