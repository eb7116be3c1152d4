package prometheusexporter

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/pmetric"

	"github.com/longhaul/longhaul/internal/otlpwire"
)

// TestTimesAtTheEndOfTimeHoldNothingUp: points from just before 1970, as a clock that
// was never set has them, are at the end of what a number holds.
func TestTimesAtTheEndOfTimeHoldNothingUp(t *testing.T) {
	md := pmetric.NewMetrics()
	rm := md.ResourceMetrics().AppendEmpty()
	rm.Resource().Attributes().PutStr("service.name", "clock")
	rm.Resource().Attributes().PutStr("os.type", "linux")
	m := rm.ScopeMetrics().AppendEmpty().Metrics().AppendEmpty()
	m.SetName("unset")
	points := m.SetEmptyGauge().DataPoints()
	for _, before := range []time.Duration{2 * time.Second, time.Second} {
		p := points.AppendEmpty()
		p.SetTimestamp(pcommon.Timestamp(math.MaxUint64 - uint64(before)))
		p.SetIntValue(1)
	}
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		ours := newTranslation(resourceLabels(createDefaultConfig().(*Config)))
		of := resource{message: marshal(md)}
		source := source{otlp: of.message}
		err := source.readResources(func(_ int, attributes []otlpwire.Attribute, message []byte) {
			of.attributes, of.message = attributes, message
		})
		if err == nil {
			err = ours.resource(&of)
		}
		samples := 0
		for _, s := range ours.sorted() {
			samples += len(s.floats)
		}
		assert.NoError(t, err)
		assert.Equal(t, 4, samples) // two are of target_info
	}()
	select {
	case <-answered:
	case <-time.After(20 * time.Second):
		panic("the target is described without an end") // before the memory is full
	}
}
