package view

import (
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
	"github.com/muesli/termenv"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files anew")

var day = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// building is a demo two minutes old: Loki is being built, a link is cut, a
// collector was killed.
func building() Snapshot {
	return Snapshot{
		At: day.Add(2 * time.Minute), Running: 2 * time.Minute, RunDir: "/tmp/longhaul-demo-1",
		Relay: Up, HubURL: "nats://127.0.0.1:4222",
		Stores: []Store{
			{Name: "store-0001", Link: Up, Collector: Up, In: Items{12345, 678901, 23456}, Unconfirmed: Items{12345, 0, 0}, SpoolBytes: 1 << 20},
			{Name: "store-0002", Link: Cut, Collector: Up, In: Items{1200, 3400, 5600}, Unconfirmed: Items{100, 200, 300}, SpoolBytes: 345 << 10, Oldest: 95 * time.Second},
			{Name: "store-0003", Link: Lost, Collector: Killed, In: Items{7, 8, 9}},
		},
		Backends: []Backend{
			{Name: "Loki", State: Building, Percent: 41, Detail: "779 of about 1,900 packages, 3m10s", URL: "http://127.0.0.1:3100", Waiting: 12445},
			{Name: "Prometheus", State: Up, URL: "http://127.0.0.1:9090", Delivered: 682101, Waiting: 200},
			{Name: "Jaeger", State: Failed, Detail: "did not become ready", URL: "http://127.0.0.1:16686", Delivered: 28765, Waiting: 300},
		},
		Notes: []Note{{day, "pipeline is up"}, {day.Add(25 * time.Second), "store-0002: link cut"}},
	}
}

// quiet is a demo with all well.
func quiet() Snapshot {
	s := building()
	s.Stores[1].Link, s.Stores[1].Unconfirmed, s.Stores[1].Oldest = Up, Items{}, 0
	s.Stores[2].Link, s.Stores[2].Collector = Up, Up
	for i := range s.Backends {
		s.Backends[i].State, s.Backends[i].Detail, s.Backends[i].Waiting = Up, "", 0
	}
	return s
}

func plainStyles() styles {
	r := lipgloss.NewRenderer(io.Discard)
	r.SetColorProfile(termenv.Ascii)
	return newStyles(r)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got+"\n"), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got+"\n")
}

func TestLiveViewShowsWhatAnOperatorNeeds(t *testing.T) {
	golden(t, "building.txt", plainStyles().render(building(), 1))
	golden(t, "quiet.txt", plainStyles().render(quiet(), 4))
}

func TestPlainLines(t *testing.T) {
	golden(t, "building.lines", strings.Join(building().Lines(), "\n"))
	golden(t, "quiet.lines", strings.Join(quiet().Lines(), "\n"))
}

func TestLiveViewFitsItsWidth(t *testing.T) {
	for _, line := range strings.Split(plainStyles().render(building(), 0), "\n") {
		require.LessOrEqual(t, lipgloss.Width(line), width, "%q", line)
	}
}

type recorder struct {
	mu   sync.Mutex
	snap Snapshot
	done []string
}

func (r *recorder) Snapshot() Snapshot { return r.snap }
func (r *recorder) did(s string, i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = append(r.done, s+string(rune('0'+i)))
}

func (r *recorder) ToggleLink(i int)      { r.did("link", i) }
func (r *recorder) ToggleCollector(i int) { r.did("collector", i) }
func (r *recorder) ToggleBackend(i int)   { r.did("backend", i) }

func TestKeysActOnTheChosenRow(t *testing.T) {
	r := &recorder{snap: quiet()}
	var m tea.Model = model{controls: r, snap: r.snap, styles: plainStyles()}
	for _, k := range []string{"l", "k", "s", "2", "l", "down", "k", "6", "s", "down", "s", "l", "9", "up", "up", "s", "1", "up", "l", "3lk"} {
		var msg tea.KeyMsg
		switch k {
		case "up":
			msg.Type = tea.KeyUp
		case "down":
			msg.Type = tea.KeyDown
		default:
			msg.Type, msg.Runes = tea.KeyRunes, []rune(k)
		}
		m, _ = m.Update(msg)
	}
	require.Equal(t, []string{"link0", "collector0", "link1", "collector2", "backend2", "backend2", "backend0", "link0", "link2", "collector2"}, r.done)
	_, cmd := m.Update(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("q")})
	require.Equal(t, tea.Quit(), cmd())
}

func TestRunEndsWithItsContextOrTheKey(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, Run(t.Context(), &recorder{snap: quiet()}, strings.NewReader("q"), &out))
	require.Contains(t, out.String(), "store-0001")

	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	require.NoError(t, Run(ctx, &recorder{snap: quiet()}, r, io.Discard))
}

func TestNumbersForPeople(t *testing.T) {
	require.Equal(t, "0", count(0))
	require.Equal(t, "-1,234", count(-1234))
	require.Equal(t, "1,234,567", count(1234567))
	require.Equal(t, "1023 B", size(1023))
	require.Equal(t, "1.5 KiB", size(1536))
	require.Equal(t, "2.0 GiB", size(2<<30))
	require.Equal(t, "–", age(-time.Second))
	require.Equal(t, "59s", age(59*time.Second))
	require.Equal(t, "1m05s", age(65*time.Second))
	require.Equal(t, "2h05m", age(2*time.Hour+5*time.Minute))
}
