package top

import (
	"context"
	"errors"
	"io"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Run shows the view on a terminal until q, Ctrl-C or the end of the context.
func Run(ctx context.Context, in io.Reader, out io.Writer, every time.Duration, hands Hands) error {
	program := tea.NewProgram(newModel(ctx, every, hands), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out))
	_, err := program.Run()
	if ctx.Err() != nil || errors.Is(err, tea.ErrInterrupted) {
		return nil
	}
	return err
}

func newModel(ctx context.Context, every time.Duration, h Hands) Model {
	return Model{every: max(every, 100*time.Millisecond), hands: commands{
		look: func() tea.Msg { return lookedMsg(h.Look(ctx)) },
		checkpoint: func(db string) tea.Cmd {
			return func() tea.Msg { return saidMsg(h.Checkpoint(ctx, db)) }
		},
		pause: func(db string) tea.Cmd {
			return func() tea.Msg { return saidMsg(h.Pause(ctx, db, pauseFor)) }
		},
	}}
}
