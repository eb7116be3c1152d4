package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// requestTimeout bounds one request, from connecting to the last byte.
const requestTimeout = 10 * time.Second

// Reasons for which the kubelet could not be asked, as the metric has them.
const (
	reasonUnreachable  = "unreachable"
	reasonCertificate  = "certificate"
	reasonCredentials  = "credentials"
	reasonUnauthorized = "unauthorized"
	reasonForbidden    = "forbidden"
	reasonStatus       = "status"
	reasonAnswer       = "answer"
)

var reasons = []string{
	reasonUnreachable, reasonCertificate, reasonCredentials, reasonUnauthorized,
	reasonForbidden, reasonStatus, reasonAnswer,
}

// failure is why the kubelet's pods are not known, with what to do about it.
type failure struct {
	reason string
	advice string
	err    error
}

func (f *failure) Error() string {
	if f.advice == "" {
		return f.err.Error()
	}
	return f.err.Error() + ": " + f.advice
}

func (f *failure) Unwrap() error { return f.err }

// client asks one kubelet. It is used by one goroutine.
type client struct {
	config    Config
	podsURL   string
	http      *http.Client
	transport *http.Transport
	ca        []byte // what transport was made with
	maxBytes  int64  // of an answer
}

func newClient(config Config) (*client, error) {
	base, err := config.base()
	if err != nil {
		return nil, err
	}
	base.Path = "/pods"
	return &client{config: config, podsURL: base.String(), maxBytes: maxAnswerBytes}, nil
}

// pods asks for all pods of the node. Errors are *failure.
func (c *client) pods(ctx context.Context) ([]*Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	request, err := c.request(ctx)
	if err != nil {
		return nil, &failure{reason: reasonCredentials, err: err}
	}
	response, err := c.http.Do(request)
	if err != nil {
		return nil, c.connectFailure(err)
	}
	defer func() {
		_, _ = io.CopyN(io.Discard, response.Body, 4<<10) // so that the connection can be used again
		_ = response.Body.Close()
	}()
	if response.StatusCode != http.StatusOK {
		return nil, c.statusFailure(response)
	}
	pods, err := parsePodList(response.Body, c.maxBytes)
	if err != nil {
		return nil, &failure{reason: reasonAnswer, err: fmt.Errorf("read the kubelet's pods from %s: %w", c.podsURL, err)}
	}
	return pods, nil
}

func (c *client) request(ctx context.Context) (*http.Request, error) {
	if err := c.connect(); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.podsURL, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/json")
	// Never in clear text: the read-only port wants no token.
	if c.config.TokenFile != "" && request.URL.Scheme == "https" {
		token, err := os.ReadFile(c.config.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token for the kubelet: %w", err)
		}
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return request, nil
}

// connect makes the HTTP client, and makes it again when the CA file changed.
func (c *client) connect() error {
	var ca []byte
	if c.config.CAFile != "" && !c.config.InsecureSkipVerify {
		var err error
		if ca, err = os.ReadFile(c.config.CAFile); err != nil {
			return fmt.Errorf("read the CA of the kubelet: %w", err)
		}
	}
	if c.transport != nil && bytes.Equal(ca, c.ca) {
		return nil
	}
	var roots *x509.CertPool
	if ca != nil {
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(ca) {
			return fmt.Errorf("the CA file %s holds no certificate", c.config.CAFile)
		}
	}
	c.close()
	c.ca = ca
	c.transport = &http.Transport{
		// No proxy: this is the node's own address.
		TLSClientConfig:     &tls.Config{RootCAs: roots, InsecureSkipVerify: c.config.InsecureSkipVerify, MinVersion: tls.VersionTLS12},
		MaxIdleConns:        1,
		IdleConnTimeout:     5 * time.Minute,
		TLSHandshakeTimeout: requestTimeout,
	}
	c.http = &http.Client{
		Transport: c.transport,
		// A redirect would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return nil
}

func (c *client) close() {
	if c.transport != nil {
		c.transport.CloseIdleConnections()
		c.transport, c.http = nil, nil
	}
}

func (c *client) connectFailure(err error) error {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &unknown) || errors.As(err, &name) || errors.As(err, &invalid) {
		return &failure{reason: reasonCertificate, err: fmt.Errorf("ask the kubelet for its pods: %w", err),
			advice: "many kubelets sign their own certificates; name the right CA in ca_file, let the cluster sign the kubelets' (serverTLSBootstrap), or set insecure_skip_verify, with which the token goes to whoever answers at this address"}
	}
	return &failure{reason: reasonUnreachable, err: fmt.Errorf("ask the kubelet for its pods: %w", err),
		advice: "is url the address of this node, and may this program connect to it?"}
}

func (c *client) statusFailure(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, 512))
	f := &failure{reason: reasonStatus, err: fmt.Errorf("the kubelet answers %s to GET %s: %q", response.Status, c.podsURL, strings.TrimSpace(string(text)))}
	switch response.StatusCode {
	case http.StatusUnauthorized:
		f.reason = reasonUnauthorized
		if c.config.TokenFile == "" {
			f.advice = "it wants a token: set token_file"
		} else {
			f.advice = fmt.Sprintf("it does not take the token in %s, or cannot ask the API server about it just now (the kubelet asks every two minutes, so this is expected while the API server is away)", c.config.TokenFile)
		}
	case http.StatusForbidden:
		f.reason = reasonForbidden
		f.advice = "the service account may not: give it a ClusterRole with get on nodes/pods and nodes/metrics, or, before Kubernetes 1.33, on nodes/proxy"
	}
	return f
}
