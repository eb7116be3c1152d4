package containers

import (
	"bufio"
	"bytes"
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/longhaul/longhaul/test/containers/line"
)

// account is what was found of each container's lines.
type account struct {
	containers map[string]*found
	records    int
}

// found is what was found of one container.
type found struct {
	times map[int]int // how often each number was found
	ends  int
	count int // by the last line, which says it
}

// readSpool reads every log record in the spool, whether the collector runs or
// not, and checks each to its last byte and attribute.
func readSpool(t *testing.T, longhaul, dir string, started map[string]*container) *account {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), longhaul, "spool", "cat", dir)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	require.NoError(t, cmd.Run(), "%s", stderr.String())
	require.Empty(t, stderr.String())
	a := &account{containers: map[string]*found{}}
	scan := bufio.NewScanner(&stdout)
	scan.Buffer(nil, 64<<20)
	for scan.Scan() {
		if !bytes.Contains(scan.Bytes(), []byte(`"resourceLogs"`)) {
			continue // metrics
		}
		request := plogotlp.NewExportRequest()
		require.NoError(t, request.UnmarshalJSON(scan.Bytes()))
		for _, resource := range request.Logs().ResourceLogs().All() {
			for _, scope := range resource.ScopeLogs().All() {
				for _, record := range scope.LogRecords().All() {
					stream, _ := record.Attributes().Get("log.iostream")
					a.add(t, record.Body().Str(), stream.Str(), resource.Resource().Attributes(), started)
				}
			}
		}
	}
	require.NoError(t, scan.Err())
	return a
}

func (a *account) add(t *testing.T, body, stream string, resource pcommon.Map, started map[string]*container) {
	t.Helper()
	id, n, end, err := line.Parse(body)
	require.NoError(t, err)
	c := started[id]
	require.NotNil(t, c, "a line of a container that was never started: %.60q", body)
	f := a.containers[id]
	if f == nil {
		f = &found{times: map[int]int{}}
		a.containers[id] = f
	}
	a.records++
	want := line.Text(id, n)
	wantStream := "stdout"
	if end {
		want = line.End(id, n)
		f.ends++
		f.count = n
	} else {
		f.times[n]++
		if line.Stderr(n) {
			wantStream = "stderr"
		}
	}
	require.True(t, body == want, "line %d of %s has %d bytes instead of %d, or others", n, id, len(body), len(want))
	require.Equal(t, wantStream, stream, "stream of line %d of %s", n, id)
	restarts, _ := resource.Get("k8s.container.restart_count")
	require.EqualValues(t, c.attempt, restarts.Int(), "restart count of %s", id)
	for key, want := range map[string]string{
		"k8s.namespace.name": c.pod.namespace, "k8s.pod.name": c.pod.name, "k8s.pod.uid": c.pod.uid, "k8s.container.name": c.name,
	} {
		got, _ := resource.Get(key)
		require.Equal(t, want, got.Str(), "%s of %s", key, id)
	}
}

// missing says which lines are not there yet.
func (a *account) missing(started map[string]*container) error {
	for _, id := range slices.Sorted(keys(started)) {
		f := a.containers[id]
		switch {
		case f == nil:
			return fmt.Errorf("nothing of %s", id)
		case f.ends == 0:
			return fmt.Errorf("%d lines of %s, the last one is not among them", len(f.times), id)
		case len(f.times) != f.count:
			return fmt.Errorf("%d of %d lines of %s, missing %s", len(f.times), f.count, id, f.holes())
		}
	}
	return nil
}

// holes lists the numbers that are missing, as ranges.
func (f *found) holes() string {
	var out string
	for n := 0; n < f.count; n++ {
		if f.times[n] > 0 {
			continue
		}
		from := n
		for n+1 < f.count && f.times[n+1] == 0 {
			n++
		}
		out += fmt.Sprintf("[%d,%d] ", from, n)
	}
	return out
}

// repeats returns how many bytes of lines were delivered again, and the most
// times that one was.
func (a *account) repeats() (lines, bytes, most int) {
	for id, f := range a.containers {
		for n, times := range f.times {
			most = max(most, times)
			if times > 1 {
				lines += times - 1
				bytes += (times - 1) * len(line.Text(id, n))
			}
		}
		lines += f.ends - 1
		most = max(most, f.ends)
	}
	return lines, bytes, most
}

func keys(m map[string]*container) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
