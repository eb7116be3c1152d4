package custody

import (
	"slices"
	"testing"
	"time"
)

func TestTwoInstancesByTurnsAreACopiedSpool(t *testing.T) {
	in, id, at := NewInstances(), key().Spool(), now
	hear := func(name string, want ...string) {
		t.Helper()
		at = at.Add(30 * time.Second)
		if got, _ := in.Hear(id, name, at); !slices.Equal(got, want) {
			t.Fatalf("%s: conflict between %q; want %q", name, got, want)
		}
	}
	hear("a")
	hear("a")
	hear("b") // may be a restart
	hear("b")
	hear("a", "a", "b")
	hear("b", "a", "b")
	if n := in.InConflict(at)[id]; n != 2 || !in.Conflicting(id, at) {
		t.Fatalf("%d instances in conflict", n)
	}
	hear("b", "a", "b")
	hear("b", "a", "b") // a is silent for 90 s now
	hear("b")
	if n := len(in.InConflict(at)); n != 0 {
		t.Fatalf("%d spools in conflict after one has gone", n)
	}
	hear("a")
	hear("b", "b", "a") // and again
}

func TestARestartedCollectorIsNoConflict(t *testing.T) {
	in, id, at := NewInstances(), key().Spool(), now
	for _, name := range []string{"a", "a", "b", "c", "c", "d", "d", "d"} { // a crash loop
		at = at.Add(5 * time.Second)
		if got, _ := in.Hear(id, name, at); got != nil {
			t.Fatalf("conflict between %q", got)
		}
	}
	if got, _ := in.Hear(id, "", at); got != nil {
		t.Fatalf("an edge without an instance: %q", got)
	}
}
