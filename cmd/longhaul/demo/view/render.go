package view

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/lipgloss"
)

// column is one column of a table: its head, width and alignment.
type column struct {
	head  string
	width int
	right bool
}

var (
	storeColumns = []column{
		{"", 4, false}, {"STORES", 12, false}, {"link", 10, false}, {"collector", 11, false},
		{"logs in", 9, true}, {"metrics in", 12, true}, {"traces in", 11, true},
		{"unconfirmed", 13, true}, {"spool", 10, true}, {"oldest unsent", 15, true},
	}
	backendColumns = []column{
		{"", 4, false}, {"BACKENDS", 12, false}, {"state", 21, false},
		{"delivered", 13, true}, {"waiting", 10, true}, {"", 2, false}, {"", 40, false},
	}
)

// width of the whole view; a terminal may be wider.
const width = 108

// notesShown is how many lines of the story are on the screen.
const notesShown = 7

// styles are the colours of the view; a renderer without colours gives plain
// text of the same shape.
type styles struct {
	title, dim, head, key, good, bad, busy, chosen lipgloss.Style
}

func newStyles(r *lipgloss.Renderer) styles {
	s := func() lipgloss.Style { return r.NewStyle() }
	return styles{
		title:  s().Bold(true),
		dim:    s().Faint(true),
		head:   s().Bold(true).Foreground(lipgloss.AdaptiveColor{Light: "25", Dark: "75"}),
		key:    s().Bold(true).Foreground(lipgloss.AdaptiveColor{Light: "130", Dark: "214"}),
		good:   s().Foreground(lipgloss.AdaptiveColor{Light: "28", Dark: "78"}),
		bad:    s().Bold(true).Foreground(lipgloss.AdaptiveColor{Light: "160", Dark: "203"}),
		busy:   s().Foreground(lipgloss.AdaptiveColor{Light: "130", Dark: "214"}),
		chosen: s().Bold(true),
	}
}

// state draws a state with its sign; the sign tells it without colours too.
func (st styles) state(s State, text string) string {
	switch s {
	case Up:
		return st.good.Render("● " + text)
	case Starting, Queued, Building:
		return st.busy.Render("◌ " + text)
	default:
		return st.bad.Render("✗ " + text)
	}
}

// render draws a snapshot with row chosen (stores first, then backends).
func (st styles) render(s Snapshot, chosen int) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }

	line("%s", between(st.title.Render("longhaul demo"), st.dim.Render("running "+age(s.Running))))
	line("%s", st.dim.Render("everything is under "+s.RunDir))
	line("")
	line("%s", st.heads(storeColumns))
	for i, c := range s.Stores {
		line("%s", st.row(storeColumns, i == chosen, []string{
			marker(i, chosen), c.Name, st.state(c.Link, string(c.Link)), st.state(c.Collector, string(c.Collector)),
			count(c.In[0]), count(c.In[1]), count(c.In[2]), count(c.Unconfirmed.Sum()), size(c.SpoolBytes), age(c.Oldest),
		}))
	}
	line("")
	hub := s.HubURL
	if s.held() {
		hub += "   holds the data of the backends that are not there yet"
	}
	line("    %s%s%s", st.head.Render(pad("RELAY + HUB", 12, false)), pad(" "+st.state(s.Relay, string(s.Relay)), 12, false), st.dim.Render(hub))
	line("")
	line("%s", st.heads(backendColumns))
	for i, be := range s.Backends {
		n := len(s.Stores) + i
		text, detail := string(be.State), be.URL
		if be.State == Building {
			text = fmt.Sprintf("building %d %%", be.Percent)
		}
		if be.Detail != "" {
			detail = be.Detail
		}
		line("%s", st.row(backendColumns, n == chosen, []string{
			marker(n, chosen), be.Name, st.state(be.State, text), count(be.Delivered), count(be.Waiting), "", st.dim.Render(detail),
		}))
	}
	line("")
	notes := s.Notes
	if len(notes) > notesShown {
		notes = notes[len(notes)-notesShown:]
	}
	for i := range notesShown {
		if i < len(notes) {
			line("    %s  %s", st.dim.Render(notes[i].At.Format("15:04:05")), notes[i].Text)
		} else {
			line("")
		}
	}
	line("")
	line("    %s", st.keys(s, chosen))
	return strings.TrimRight(b.String(), "\n")
}

// keys draws the keys that do something to the chosen row.
func (st styles) keys(s Snapshot, chosen int) string {
	key := func(k, does string) string { return st.key.Render(k) + " " + does }
	keys := []string{key("↑↓", "or "+st.key.Render(fmt.Sprintf("1-%d", len(s.Stores)+len(s.Backends)))+" choose")}
	if chosen < len(s.Stores) {
		c := s.Stores[chosen]
		link, collector := "cut link", "kill -9 collector"
		if c.Link == Cut {
			link = "restore link"
		}
		if c.Collector != Up {
			collector = "restart collector"
		}
		keys = append(keys, key("l", link), key("k", collector))
	} else if chosen < len(s.Stores)+len(s.Backends) {
		if be := s.Backends[chosen-len(s.Stores)]; be.State == Up {
			keys = append(keys, key("s", "stop "+be.Name))
		} else if !be.pending() {
			keys = append(keys, key("s", "start "+be.Name))
		}
	}
	return strings.Join(append(keys, key("q", "quit")), "   ")
}

func (st styles) heads(cols []column) string {
	var b strings.Builder
	for _, c := range cols {
		b.WriteString(pad(st.head.Render(c.head), c.width, c.right))
	}
	return strings.TrimRight(b.String(), " ")
}

func (st styles) row(cols []column, chosen bool, cells []string) string {
	var b strings.Builder
	for i, c := range cols {
		cell := cells[i]
		if chosen && i < 2 {
			cell = st.chosen.Render(cell)
		}
		b.WriteString(pad(cell, c.width, c.right))
	}
	return strings.TrimRight(b.String(), " ")
}

func marker(row, chosen int) string {
	if row == chosen {
		return fmt.Sprintf("▸ %d", row+1)
	}
	return fmt.Sprintf("  %d", row+1)
}

// pad fills a cell, which may hold colours, to its width.
func pad(s string, w int, right bool) string {
	fill := strings.Repeat(" ", max(0, w-lipgloss.Width(s)))
	if right {
		return fill + s
	}
	return s + fill
}

// between puts two texts at the two ends of a line.
func between(left, right string) string {
	gap := max(1, width-lipgloss.Width(left)-lipgloss.Width(right))
	return left + strings.Repeat(" ", gap) + right
}
