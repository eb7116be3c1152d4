package frames

import (
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
)

// containersPerFrame is how many containers of a node log within a second.
const containersPerFrame = 8

// observedAfter is between a line's own time and its being read.
const observedAfter = 731 * time.Microsecond

type logsPrototype struct{ logs plog.Logs }

// newLogs spreads lines over some containers, one after the other from a place
// in the corpus on.
func newLogs(c corpus, from, items int) *logsPrototype {
	p := &logsPrototype{plog.NewLogs()}
	containers := min(containersPerFrame, items)
	for i := range containers {
		program := c.logs[(from+i)%len(c.logs)]
		resource := p.logs.ResourceLogs().AppendEmpty()
		describePod(resource.Resource().Attributes(), program.name)
		records := resource.ScopeLogs().AppendEmpty().LogRecords()
		for j := i; j < items; j += containers {
			line := program.lines[(from*items+j)%len(program.lines)]
			addRecord(records, line)
		}
	}
	return p
}

func describePod(attributes pcommon.Map, program string) {
	attributes.PutStr("service.name", program)
	attributes.PutStr("k8s.namespace.name", "shop")
	attributes.PutStr("k8s.deployment.name", program)
	attributes.PutStr("k8s.pod.name", program+"-7d9f8b6c5d-x2x9z")
	attributes.PutStr("k8s.pod.uid", fmt.Sprintf("0b5e4c1e-9d3a-4f5e-8a77-%012d", len(program)))
	attributes.PutStr("k8s.container.name", program)
	attributes.PutInt("k8s.container.restart_count", 0)
}

func addRecord(records plog.LogRecordSlice, line string) {
	record := records.AppendEmpty()
	record.Body().SetStr(line)
	record.SetSeverityNumber(plog.SeverityNumberInfo)
	record.SetSeverityText("info")
	switch {
	case strings.Contains(line, "ERROR"), strings.Contains(line, "error"):
		record.SetSeverityNumber(plog.SeverityNumberError)
		record.SetSeverityText("error")
	case strings.Contains(line, "WARN"):
		record.SetSeverityNumber(plog.SeverityNumberWarn)
		record.SetSeverityText("warn")
	}
	record.Attributes().PutStr("log.iostream", "stdout")
}

// stamp spreads the records over the second that ends at a time.
func (p *logsPrototype) stamp(at time.Time) (oldest time.Time) {
	total := p.logs.LogRecordCount()
	oldest = at.Add(-time.Second)
	n := 0
	for _, resource := range p.logs.ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, record := range scope.LogRecords().All() {
				t := oldest.Add(time.Second * time.Duration(n) / time.Duration(total))
				record.SetTimestamp(pcommon.NewTimestampFromTime(t))
				record.SetObservedTimestamp(pcommon.NewTimestampFromTime(t.Add(observedAfter)))
				n++
			}
		}
	}
	return oldest
}

func (p *logsPrototype) count() (items, samples int) {
	n := p.logs.LogRecordCount()
	return n, n
}

func (p *logsPrototype) marshal() ([]byte, error) {
	return (&plog.ProtoMarshaler{}).MarshalLogs(p.logs)
}

// marker is a line of one more container, the same in all frames: a backend that
// keeps order keeps it for each container.
func (p *logsPrototype) marker() ([]byte, error) {
	marked := plog.NewLogs()
	resource := marked.ResourceLogs().AppendEmpty()
	describePod(resource.Resource().Attributes(), markerProgram)
	records := resource.ScopeLogs().AppendEmpty().LogRecords()
	addRecord(records, placeholderText)
	records.At(0).SetTimestamp(placeholderTime)
	records.At(0).SetObservedTimestamp(placeholderTime)
	return (&plog.ProtoMarshaler{}).MarshalLogs(marked)
}
