package hub

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/longhaul/longhaul/internal/frame"
)

func names() *rapid.Generator[string] {
	return rapid.StringMatching(`[A-Za-z0-9._-]{1,63}`)
}

func TestSubjectsGiveTheOriginBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Origin{names().Draw(t, "cluster"), names().Draw(t, "node")}
		signal := rapid.SampledFrom(frame.Signals).Draw(t, "signal")
		subject := FrameSubject(signal, want)
		if n := strings.Count(subject, "."); n != 4 {
			t.Fatalf("%s has %d dots; a permission on it would match something else", subject, n)
		}
		gotSignal, got, err := ParseFrameSubject(subject)
		if err != nil || got != want || gotSignal != signal {
			t.Fatalf("ParseFrameSubject(%s) = %v %v %v", subject, gotSignal, got, err)
		}
		if got, err := ParseHelloSubject(HelloSubject(want)); err != nil || got != want {
			t.Fatalf("ParseHelloSubject = %v %v", got, err)
		}
		epoch := frame.Epoch(rapid.Uint64Min(1).Draw(t, "epoch"))
		o, e, err := ParseCustodyKey(CustodyKey(want, epoch))
		if err != nil || o != want || e != epoch {
			t.Fatalf("ParseCustodyKey = %v %v %v", o, e, err)
		}
	})
}

func TestNamesThatWouldBreakASubjectAreRefused(t *testing.T) {
	for _, name := range []string{"", "a b", "a*", "a>", "a=b", "ä", "a/b", strings.Repeat("x", 64), "a\n"} {
		if ValidName(name) == nil {
			t.Errorf("ValidName(%q) accepts it", name)
		}
	}
}

func TestForeignSubjectsAreErrors(t *testing.T) {
	for _, subject := range []string{"", "x", "longhaul.frames.logs.a", "longhaul.frames.bogus.a.b", "longhaul.frames.logs.a.b.c", "longhaul.hello.a.b"} {
		if _, _, err := ParseFrameSubject(subject); err == nil {
			t.Errorf("ParseFrameSubject(%q) accepts it", subject)
		}
	}
}

func TestConnectionProblemsNameTheKey(t *testing.T) {
	for urls, want := range map[string]string{
		"":                           "urls: must name",
		" , ":                        "urls: must name",
		"http://x:1":                 "scheme must be",
		"nats://":                    "no host",
		"nats://x:99999":             "port must be",
		"nats://x:1,wss://y:443":     "servers of one kind",
		"nats://ok:4222,ftp://bad:1": "ftp://bad:1",
	} {
		c := Connection{URLs: urls}
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("urls %q: %v; want %q in it", urls, err, want)
		}
	}
	for _, urls := range []string{"nats://h:4222", "tls://h:4222, nats://i", "wss://h:443,ws://127.0.0.1:80"} {
		c := Connection{URLs: urls}
		if err := c.Check(); err != nil {
			t.Errorf("urls %q: %v", urls, err)
		}
	}
}
