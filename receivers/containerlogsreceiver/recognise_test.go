package containerlogsreceiver

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/collector/pdata/plog"
)

func TestRecogniseSeverityAndTraceContext(t *testing.T) {
	const (
		trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		// 9856870145326712345 and 1234567890 in hex
		datadogTrace, datadogSpan = "000000000000000088caa32c595a0619", "00000000499602d2"
	)
	type want struct {
		severity    plog.SeverityNumber
		text        string
		trace, span string
	}
	for line, want := range map[string]want{
		// JSON
		`{"time":"x","level":"INFO","msg":"a \"quoted\" \\"}`:                                    {plog.SeverityNumberInfo, "INFO", "", ""},
		`{"severity":"ERROR","trace_id":"` + trace + `","span_id":"` + span + `"}`:               {plog.SeverityNumberError, "ERROR", trace, span},
		`{"lvl":"dbg","traceId":"4BF92F3577B34DA6A3CE929D0E0E4736","spanId":"` + span + `"}`:     {plog.SeverityNumberDebug, "dbg", trace, span},
		`{"nested":{"level":"error","trace_id":"` + trace + `"},"level":30}`:                     {plog.SeverityNumberInfo, "30", "", ""},
		`{"level":"loud","severity":"warning"}`:                                                  {plog.SeverityNumberWarn, "warning", "", ""},
		`{"level":"warn","trace_id":"short","span_id":"zzf067aa0ba902b7"}`:                       {plog.SeverityNumberWarn, "warn", "", ""},
		`{"level":"fatal","broken`:                                                               {plog.SeverityNumberFatal, "fatal", "", ""},
		`{"level":{"a":1},"b":[1,"]"]}`:                                                          {0, "", "", ""},
		`{"level":"a level far too long to be one"}`:                                             {0, "", "", ""},
		`{"level":6,"short_message":"GELF"}`:                                                     {plog.SeverityNumberInfo, "6", "", ""},
		`{"level":600}`:                                                                          {0, "", "", ""},
		`{"dd.trace_id":"9856870145326712345","dd.span_id":"1234567890"}`:                        {0, "", datadogTrace, datadogSpan},
		`{"dd":{"trace_id":"9856870145326712345","span_id":1234567890,"service":"till"}}`:        {0, "", datadogTrace, datadogSpan},
		`{"dd":{"trace_id":"` + trace + `","span_id":"1234567890"}}`:                             {0, "", trace, datadogSpan},
		`{"log.level":"error","trace.id":"` + trace + `","span.id":"` + span + `"}`:              {plog.SeverityNumberError, "error", trace, span},
		`{"log":{"level":"warn"},"trace":{"id":"` + trace + `"},"span":{"id":"` + span + `"}}`:   {plog.SeverityNumberWarn, "warn", trace, span},
		`{"@t":"x","@l":"Warning","@tr":"` + trace + `","@sp":"` + span + `"}`:                   {plog.SeverityNumberWarn, "Warning", trace, span},
		`{"severity":"NOTICE","logging.googleapis.com/trace":"projects/p/traces/` + trace + `"}`: {plog.SeverityNumberInfo2, "NOTICE", trace, ""},
		`{"traceparent":"00-` + trace + `-` + span + `-01"}`:                                     {0, "", trace, span},
		`{"levelname":"CRITICAL","otelTraceID":"` + trace + `","otelSpanID":"0"}`:                {plog.SeverityNumberError2, "CRITICAL", trace, ""},
		`{} trailing`: {0, "", "", ""}, `{`: {0, "", "", ""}, `[]`: {0, "", "", ""}, ``: {0, "", "", ""},
		// logfmt
		`time=2026-11-23T10:00:00Z level=warn msg="a \"level=error\" b" trace_id=` + trace + ` span_id=` + span: {plog.SeverityNumberWarn, "warn", trace, span},
		`ts=1 caller=x.go:1 lvl=eror err="no \\"`: {plog.SeverityNumberError, "eror", "", ""},
		`level=30 msg=x`:               {plog.SeverityNumberInfo, "30", "", ""},
		`msg="unterminated level=info`: {0, "", "", ""},
		`a=b and words level=info`:     {plog.SeverityNumberInfo, "info", "", ""},
		`level=`:                       {0, "", "", ""},
		`dd.trace_id=9856870145326712345 dd.span_id=1234567890 level=x`: {0, "", datadogTrace, datadogSpan},
		// klog
		`I1123 10:00:00.123456       1 reconciler.go:42] "done" pod="shop/till"`: {plog.SeverityNumberInfo, "I", "", ""},
		`W1123 10:00:00.123456 1 x.go:1] careful`:                                {plog.SeverityNumberWarn, "W", "", ""},
		`E1123 10:00:00.123456 1 x.go:1] ERROR`:                                  {plog.SeverityNumberError, "E", "", ""},
		`F1123 10:00:00.123456 1 x.go:1] dead`:                                   {plog.SeverityNumberFatal, "F", "", ""},
		`X1123 10:00:00.123456 1 x.go:1] what`:                                   {0, "", "", ""},
		`I1123 10:00`:                                                            {0, "", "", ""},
		// words
		`2026-11-23 10:00:00,123 - shop.till - ERROR - no paper`:                           {plog.SeverityNumberError, "ERROR", "", ""},
		`2015-07-29 17:41:44,747 - INFO  [QuorumPeer[myid=1]/0:0] - Notification`:          {plog.SeverityNumberInfo, "INFO", "", ""},
		`2015-10-18 18:01:47,978 WARN [main] org.apache.hadoop: x`:                         {plog.SeverityNumberWarn, "WARN", "", ""},
		`ERROR:root:payment failed`:                                                        {plog.SeverityNumberError, "ERROR", "", ""},
		`[ERROR] no paper`:                                                                 {plog.SeverityNumberError, "ERROR", "", ""},
		`[Sun Dec 04 04:47:44 2005] [error] mod_jk child`:                                  {plog.SeverityNumberError, "error", "", ""},
		`[Mon Nov 23 10:00:00.1 2026] [proxy:warn] [pid 31] x`:                             {plog.SeverityNumberWarn, "warn", "", ""},
		`2026/11/23 10:00:00 [error] 31#31: *1 open() "/x" failed`:                         {plog.SeverityNumberError, "error", "", ""},
		`2026-11-23T10:00:00.0Z 0 [Warning] [MY-010068] [Server] CA certificate`:           {plog.SeverityNumberWarn, "Warning", "", ""},
		`2026-11-23 10:00:00.000 UTC [31] FATAL:  role "x" does not exist`:                 {plog.SeverityNumberFatal, "FATAL", "", ""},
		`info: Shop.Till[0]`:                                                               {plog.SeverityNumberInfo, "info", "", ""},
		`fail: Shop.Till[0]`:                                                               {plog.SeverityNumberError, "fail", "", ""},
		`INFO[0000] open`:                                                                  {plog.SeverityNumberInfo, "INFO", "", ""},
		"\x1b[2m2026-11-23T10:00:00Z\x1b[0m \x1b[32mINFO\x1b[0m shop: open":                {plog.SeverityNumberInfo, "INFO", "", ""},
		`10:00AM WRN slow`:                                                                 {plog.SeverityNumberWarn, "WRN", "", ""},
		`I, [2026-11-23T10:00:00.123456 #1]  INFO -- : open`:                               {plog.SeverityNumberInfo, "INFO", "", ""},
		`10.0.0.1 - - [23/Nov/2026:10:00:00 +0000] "GET /ERROR HTTP/1.1" 200`:              {0, "", "", ""},
		`Informational text with an error in it`:                                           {0, "", "", ""},
		`the ERRORS are many, INFORMATION is scarce, error`:                                {plog.SeverityNumberInfo, "INFORMATION", "", ""},
		"ERROR first line\nWARN second line":                                               {plog.SeverityNumberError, "ERROR", "", ""},
		"first line\nWARN second line":                                                     {0, "", "", ""},
		`2026-11-23 10:00:00 INFO [shop,` + trace + `,` + span + `] 1 --- [main] x`:        {plog.SeverityNumberInfo, "INFO", trace, span},
		`2026-11-23 10:00:00 INFO 1 --- [shop] [main] [` + trace + `-` + span + `] x`:      {plog.SeverityNumberInfo, "INFO", trace, span},
		`INFO [root] [trace_id=` + trace + ` span_id=` + span + ` trace_sampled=True] - x`: {plog.SeverityNumberInfo, "INFO", trace, span},
		`=> SpanId:` + span + `, TraceId:` + trace + `, ParentId:0`:                        {0, "", trace, span},
		`WARN [dd.service=till dd.trace_id=9856870145326712345 dd.span_id=1234567890] x`:   {plog.SeverityNumberWarn, "WARN", datadogTrace, datadogSpan},
		`took traceparent=00-` + trace + `-` + span + `-01`:                                {0, "", trace, span},
		`no trace here`: {0, "", "", ""}, `race_id=` + trace: {0, "", "", ""}, `trace_id=`: {0, "", "", ""}, `a trace_id`: {0, "", "", ""},
	} {
		got := recognise([]byte(line))
		assert.Equal(t, want.severity, got.severity, line)
		assert.Equal(t, want.text, string(got.severityText), line)
		assert.Equal(t, want.trace, got.traceID.String(), line)
		assert.Equal(t, want.span, got.spanID.String(), line)
	}
}

func TestRecognisingDoesNotAllocate(t *testing.T) {
	lines := [][]byte{
		[]byte(`{"level":"info","dd":{"trace_id":"9856870145326712345"},"trace":{"id":"4bf92f3577b34da6a3ce929d0e0e4736"}}`),
		[]byte(`level=info msg="x" dd.trace_id=9856870145326712345`),
		[]byte(`2026-11-23 10:00:00 INFO [shop,4bf92f3577b34da6a3ce929d0e0e4736,00f067aa0ba902b7] x`),
	}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		for _, line := range lines {
			recognise(line)
		}
	}))
}

func FuzzRecognise(f *testing.F) {
	for _, line := range []string{
		`{"level":"info","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","n":{"a":[1,"}"]},"dd":{"span_id":12}}`,
		`{"severity":50,"x":"\\\""}`, `a=b c="d\"e" level=warn trace_id=1`, `I1123 10:00:00.1 x] y`,
		"\x1b[32mINFO\x1b[0m x", `[core:error] x`, `warn: TraceId: 4bf92f3577b34da6a3ce929d0e0e4736, SpanId:00f067aa0ba902b7`,
		`INFO [x,4bf92f3577b34da6a3ce929d0e0e4736,00f067aa0ba902b7] y`, `traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`,
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		found := recognise(line)
		if (found.severity == 0) != (found.severityText == nil) {
			t.Fatalf("%q became %+v", line, found)
		}
	})
}

func BenchmarkRecognise(b *testing.B) {
	for name, line := range map[string]string{
		"json":   `{"time":"2026-11-23T10:00:00Z","level":"info","msg":"order taken","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","span_id":"00f067aa0ba902b7","order":17}`,
		"logfmt": `time=2026-11-23T10:00:00Z level=info msg="synchronised catalogue" component=catalogue items=17 changed=3 duration=17ms source=https://hub.example/catalogue`,
		"klog":   `I1123 10:00:00.123456       1 reconciler.go:42] "operationExecutor.MountVolume succeeded for volume \"kube-api-access\"" pod="shop/till"`,
		"words":  `2026-11-23 10:00:00.123 INFO [http-nio-8080-exec-1] c.l.shop.PaymentController : payment of terminal 7 authorised in 12 ms`,
		"access": `10.42.0.7 - - [23/Nov/2026:10:00:00 +0000] "GET /api/v1/orders/17?expand=lines HTTP/1.1" 200 1234 "https://till.local/orders" "Mozilla/5.0 (X11; Linux x86_64)"`,
	} {
		b.Run(name, func(b *testing.B) {
			text := []byte(line)
			for b.Loop() {
				recognise(text)
				beginsTrace(text)
			}
		})
	}
}
