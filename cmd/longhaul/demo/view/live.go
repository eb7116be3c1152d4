package view

import (
	"context"
	"io"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/lipgloss"
)

const refresh = 500 * time.Millisecond

// Controls is what the keys act on. The methods must not block: they begin
// the work and report it in the notes of later snapshots.
type Controls interface {
	Snapshot() Snapshot
	ToggleLink(store int)
	ToggleCollector(store int)
	ToggleBackend(backend int)
}

// Run shows the live view until the user quits or ctx is done.
func Run(ctx context.Context, c Controls, in io.Reader, out io.Writer) error {
	m := model{controls: c, styles: newStyles(lipgloss.NewRenderer(out)), snap: c.Snapshot()}
	// The caller owns signals and panics: it has processes to stop.
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out),
		tea.WithAltScreen(), tea.WithoutSignalHandler())
	_, err := p.Run()
	if ctx.Err() != nil {
		return nil // ended from outside, which is no failure of the view
	}
	return err
}

type tick struct{}

type model struct {
	controls Controls
	styles   styles
	snap     Snapshot
	chosen   int
	width    int
}

func next() tea.Cmd { return tea.Tick(refresh, func(time.Time) tea.Msg { return tick{} }) }

func (m model) Init() tea.Cmd { return next() }

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tick:
		m.snap = m.controls.Snapshot()
		return m, next()
	case tea.WindowSizeMsg:
		m.width = msg.Width
	case tea.KeyMsg:
		if msg.Type != tea.KeyRunes {
			return m.key(msg.String())
		}
		// Keys typed fast arrive together.
		for _, r := range msg.Runes {
			var cmd tea.Cmd
			if m, cmd = m.key(string(r)); cmd != nil {
				return m, cmd
			}
		}
	}
	return m, nil
}

func (m model) key(k string) (model, tea.Cmd) {
	stores, rows := len(m.snap.Stores), len(m.snap.Stores)+len(m.snap.Backends)
	switch k {
	case "q", "ctrl+c", "esc":
		return m, tea.Quit
	case "up":
		m.chosen = max(0, m.chosen-1)
	case "down":
		m.chosen = min(rows-1, m.chosen+1)
	case "l":
		if m.chosen < stores {
			m.controls.ToggleLink(m.chosen)
		}
	case "k":
		if m.chosen < stores {
			m.controls.ToggleCollector(m.chosen)
		}
	case "s":
		if m.chosen >= stores && m.chosen < rows {
			m.controls.ToggleBackend(m.chosen - stores)
		}
	default:
		if len(k) == 1 && k[0] >= '1' && int(k[0]-'0') <= rows {
			m.chosen = int(k[0]-'0') - 1
		}
	}
	m.snap = m.controls.Snapshot()
	return m, nil
}

func (m model) View() string {
	text := m.styles.render(m.snap, m.chosen)
	if m.width > 0 && m.width < width {
		// Cut rather than wrapped: the left part stays readable.
		text = lipgloss.NewStyle().MaxWidth(m.width).Render(text)
	}
	return text
}
