// Package kubelettest is a kubelet as a client sees it, for tests: HTTPS with a
// certificate of its own, a token that is checked, /pods and the metrics of
// containers. What it answers was made in the shape of a real kubelet's answers.
package kubelettest

import (
	_ "embed"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// Pods is the v1.PodList a new Kubelet answers.
//
//go:embed testdata/pods.json
var Pods []byte

//go:embed testdata/cadvisor.txt
var cadvisor []byte

//go:embed testdata/resource.txt
var resource []byte

// Token is the one a new Kubelet takes, and what TokenFile holds.
const Token = "the-service-account's-token"

// Kubelet is a running server. It is closed when the test ends.
type Kubelet struct {
	URL       string // https://127.0.0.1:<port>
	CAFile    string
	TokenFile string

	t      testing.TB
	mu     sync.Mutex
	token  string
	pods   []byte
	answer http.HandlerFunc // instead of the ordinary one; nil for the latter
	counts map[string]int
}

// New starts a kubelet that lists Pods.
func New(t testing.TB) *Kubelet {
	t.Helper()
	k := &Kubelet{t: t, token: Token, pods: Pods, counts: map[string]int{}}
	server := httptest.NewTLSServer(http.HandlerFunc(k.serve))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	k.URL, k.CAFile, k.TokenFile = server.URL, filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")
	k.write(k.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	k.write(k.TokenFile, []byte(Token+"\n"))
	return k
}

func (k *Kubelet) write(path string, content []byte) {
	k.t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		k.t.Fatal(err)
	}
}

func (k *Kubelet) serve(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	token, pods, answer := k.token, k.pods, k.answer
	k.counts[r.URL.Path]++
	k.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	if answer != nil {
		answer(w, r)
		return
	}
	switch r.URL.Path {
	case "/pods":
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(pods)
	case "/metrics/cadvisor":
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(cadvisor)
	case "/metrics/resource":
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = w.Write(resource)
	default:
		http.NotFound(w, r)
	}
}

// SetToken changes the only token that is taken.
func (k *Kubelet) SetToken(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.token = token
}

// RenewToken changes the token that is taken, and the file.
func (k *Kubelet) RenewToken(token string) {
	k.t.Helper()
	k.SetToken(token)
	k.write(k.TokenFile, []byte(token))
}

// Answer has every request with the right token answered by the handler; nil
// goes back to the ordinary answers.
func (k *Kubelet) Answer(handler http.HandlerFunc) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answer = handler
}

// Refuse has every request answered with a status, as the kubelet words it.
func (k *Kubelet) Refuse(status int) {
	k.Answer(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, fmt.Sprintf("%s (user=system:serviceaccount:longhaul:collector, verb=get, resource=nodes, subresource(s)=[pods proxy])", http.StatusText(status)), status)
	})
}

// List has /pods answer only those of Pods for which keep is true.
func (k *Kubelet) List(keep func(namespace, name string) bool) {
	k.t.Helper()
	k.Edit(func(pod map[string]any) bool {
		metadata := pod["metadata"].(map[string]any)
		return keep(metadata["namespace"].(string), metadata["name"].(string))
	})
}

// Edit has /pods answer Pods changed by edit, without those for which it returns
// false.
func (k *Kubelet) Edit(edit func(pod map[string]any) bool) {
	k.t.Helper()
	var list map[string]any
	if err := json.Unmarshal(Pods, &list); err != nil {
		k.t.Fatal(err)
	}
	list["items"] = slices.DeleteFunc(list["items"].([]any), func(pod any) bool { return !edit(pod.(map[string]any)) })
	content, err := json.Marshal(list)
	if err != nil {
		k.t.Fatal(err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods = content
}

// Requests counts the requests for a path, whatever their answer.
func (k *Kubelet) Requests(path string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts[path]
}
