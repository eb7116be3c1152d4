package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/longhaul/longhaul/internal/lab"
)

const (
	namespace     = "shop"
	criTimeFormat = "2006-01-02T15:04:05.000000000Z07:00"
	// Longer lines are written in pieces, as a container runtime does at 16 KiB.
	criPieceBytes = 400
)

// logLine identifies a line: its container, its time as the runtime stamped it
// and its text.
type logLine struct {
	container string
	time      int64
	text      string
}

// podLog is the log file of a container, and the lines still to be written.
type podLog struct {
	container, path string
	lines           []string
	last            int64 // time stamped last; every line gets a later one
}

// newPodLogs makes an empty log file for each corpus file, as the kubelet lays
// them out.
func newPodLogs(t *testing.T, root string) []*podLog {
	t.Helper()
	var pods []*podLog
	for container, lines := range corpusLogs(t) {
		uid := fmt.Sprintf("5f0c6a3e-0000-4000-8000-%012d", len(pods)+1)
		dir := filepath.Join(root, fmt.Sprintf("%s_%s-0_%s", namespace, container, uid), container)
		require.NoError(t, os.MkdirAll(dir, 0o755))
		pod := &podLog{container: container, path: filepath.Join(dir, "0.log"), lines: lines}
		require.NoError(t, os.WriteFile(pod.path, nil, 0o644))
		pods = append(pods, pod)
	}
	return pods
}

// next formats up to n lines and returns their bytes in the CRI format.
func (p *podLog) next(n int) (written []logLine, cri []byte) {
	n = min(n, len(p.lines))
	for i, text := range p.lines[:n] {
		stream := "stdout"
		if i%7 == 0 {
			stream = "stderr"
		}
		line := logLine{container: p.container, text: text}
		for {
			p.last = max(p.last+1, time.Now().UnixNano())
			if line.time == 0 {
				line.time = p.last // a line's time is that of its first piece
			}
			stamp := time.Unix(0, p.last).UTC().Format(criTimeFormat)
			if len(text) <= criPieceBytes {
				cri = fmt.Appendf(cri, "%s %s F %s\n", stamp, stream, text)
				break
			}
			cri = fmt.Appendf(cri, "%s %s P %s\n", stamp, stream, text[:criPieceBytes])
			text = text[criPieceBytes:]
		}
		written = append(written, line)
	}
	p.lines = p.lines[n:]
	return written, cri
}

// append writes in two halves that cut a line anywhere: a reader must wait for
// its end.
func (p *podLog) append(cri []byte) error {
	f, err := os.OpenFile(p.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	half := len(cri) / 2
	if _, err := f.Write(cri[:half]); err != nil {
		return err
	}
	time.Sleep(time.Millisecond)
	if _, err := f.Write(cri[half:]); err != nil {
		return err
	}
	return f.Close()
}

// rotate does what the kubelet does: rename, and begin a new file.
func (p *podLog) rotate() error {
	if err := os.Rename(p.path, p.path+"."+time.Now().UTC().Format("20060102-150405")); err != nil {
		return err
	}
	return os.WriteFile(p.path, nil, 0o644)
}

// writeLogs writes every line of the corpus, spread over the duration, and
// returns them. One file is rotated on the way.
func writeLogs(ctx context.Context, pods []*podLog, over time.Duration) ([]logLine, error) {
	const tick = 200 * time.Millisecond
	ticks := int(over / tick)
	perTick := (len(pods[0].lines) + ticks - 1) / ticks
	var all []logLine
	for i := range ticks {
		if i == ticks/8 {
			if err := pods[0].rotate(); err != nil {
				return nil, err
			}
		}
		for _, p := range pods {
			written, cri := p.next(perTick)
			if err := p.append(cri); err != nil {
				return nil, err
			}
			all = append(all, written...)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(tick):
		}
	}
	return all, nil
}

// foundLogs reads back every line of the namespace from Loki.
func foundLogs(ctx context.Context, l *lab.Loki, cluster string, from time.Time) ([]lab.LogEntry, error) {
	return l.Entries(ctx, fmt.Sprintf(`{cluster=%q, namespace=%q}`, cluster, namespace), from.Add(-time.Minute), time.Now().Add(time.Minute))
}

// requireLogs fails unless exactly the written lines were found, each once, with
// the labels and metadata of their pod.
func requireLogs(t *testing.T, written []logLine, found []lab.LogEntry) {
	t.Helper()
	want := make(map[logLine]int, len(written))
	for _, line := range written {
		want[line]++
	}
	got := make(map[logLine]int, len(found))
	for _, e := range found {
		got[logLine{container: e.Labels["container"], time: e.Time, text: e.Line}]++
		require.Equal(t, e.Labels["container"], e.Labels["service_name"])
		require.Equal(t, e.Labels["container"]+"-0", e.Metadata["k8s_pod_name"], "structured metadata of %q: %v", e.Line, e.Metadata)
		require.Equal(t, "node-a", e.Metadata["k8s_node_name"], "structured metadata of %q: %v", e.Line, e.Metadata)
	}
	requireOnce(t, "log lines", want, got)
}

// requireOnce compares what was sent with what was found, and shows the first
// few differences.
func requireOnce[K comparable](t *testing.T, what string, want, got map[K]int) {
	t.Helper()
	missing, doubled, foreign := 0, 0, 0
	var shown strings.Builder
	show := func(kind string, n int, k K) {
		if n <= 5 {
			fmt.Fprintf(&shown, "\n  %s: %+q", kind, fmt.Sprint(k))
		}
	}
	for k := range want {
		switch n := got[k]; {
		case n == 0:
			missing++
			show("missing", missing, k)
		case n > 1:
			doubled++
			show("found more than once", doubled, k)
		}
	}
	for k := range got {
		if want[k] == 0 {
			foreign++
			show("never sent, but found", foreign, k)
		}
	}
	result := fmt.Sprintf("%s: %d sent, %d missing, %d found more than once, %d found that were never sent", what, len(want), missing, doubled, foreign)
	if missing+doubled+foreign > 0 {
		fail(t, "%s%s", result, shown.String())
	}
	say("%s", result)
}
