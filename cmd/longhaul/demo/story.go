package demo

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/longhaul/longhaul/cmd/longhaul/demo/view"
)

// storyKept is how many notes are kept for the view.
const storyKept = 50

// story is what happened so far, in the demo's own words.
type story struct {
	mu    sync.Mutex
	notes []view.Note
	echo  io.Writer // gets every note as a line; nil while the live view has the screen
}

func (s *story) add(format string, args ...any) {
	n := view.Note{At: time.Now(), Text: fmt.Sprintf(format, args...)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, n)
	if len(s.notes) > storyKept {
		s.notes = s.notes[len(s.notes)-storyKept:]
	}
	if s.echo != nil {
		_, _ = fmt.Fprintf(s.echo, "%s %s\n", n.At.Format("15:04:05"), n.Text) // a closed pipe must not stop the demo
	}
}

func (s *story) lines(lines []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range lines {
		if s.echo != nil {
			_, _ = fmt.Fprintln(s.echo, l)
		}
	}
}

func (s *story) setEcho(w io.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.echo = w
}

func (s *story) all() []view.Note {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]view.Note(nil), s.notes...)
}
