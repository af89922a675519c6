package voice

import (
	"log/slog"
	"sync"
)

// Saving logs what could not be saved, by topic. Its methods may be called from any goroutine.
type Saving struct {
	mu    sync.Mutex
	voice Voice
}

// NewSaving returns a Saving that has logged nothing yet.
func NewSaving(log *slog.Logger) *Saving { return &Saving{voice: New(log)} }

// Report logs the result of saving the state called topic. An error stops nothing.
func (s *Saving) Report(topic string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.voice.Say(topic, slog.LevelError, true,
			"state could not be saved; after a restart policies would wait and learn once more", "err", err)
	case s.voice.Failing(topic):
		s.voice.Say(topic, slog.LevelInfo, false, "state is saved again")
	}
}
