// Package voice is the log of one database. It logs a message that recurs at every turn only
// now and then, with a count.
package voice

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// How long a recurring failure is only counted: longer for an identical error than for one
// whose text differs each time.
const (
	repeatSilence  = 10 * time.Minute
	anotherSilence = time.Minute
)

// repeated is what was last logged about one topic, so that an error at every turn does
// not flood the log.
type repeated struct {
	message, cause string
	at             time.Time
	unsaid         int // failures since then
	failures       int // in a row
}

// Voice is the log of one database. Its owner serializes access.
type Voice struct {
	Log  *slog.Logger
	said map[string]repeated // by topic: a policy's action, or the opening
}

// New returns a Voice that has logged nothing yet.
func New(log *slog.Logger) Voice { return Voice{Log: log, said: map[string]repeated{}} }

// Failing reports whether the last message about the topic was a failure.
func (v *Voice) Failing(topic string) bool { return v.said[topic].failures > 0 }

// Routine logs a success that recurs, such as a PASSIVE checkpoint every ten seconds: the first
// one, and then every ten minutes how many there were.
func (v *Voice) Routine(topic, message string, attrs ...any) {
	was := v.said[topic]
	if was.failures == 0 && was.message == message && time.Since(was.at) < repeatSilence {
		was.unsaid++
		v.said[topic] = was
		return
	}
	if was.failures == 0 && was.unsaid > 0 {
		attrs = append(attrs, "seen", fmt.Sprintf("%d× since the last such line", was.unsaid+1))
	}
	v.Say(topic, slog.LevelInfo, false, message, attrs...)
	v.said[topic] = repeated{message: message, at: time.Now()}
}

// Say logs the result of something that is repeated. Consecutive failures of one topic are
// combined into one message ("seen 431×"), and so is their end.
func (v *Voice) Say(topic string, level slog.Level, failed bool, message string, attrs ...any) {
	if !failed {
		if was := v.said[topic]; was.failures > 0 {
			attrs = append(attrs, "failures_before", was.failures)
		}
		delete(v.said, topic)
		v.Log.Log(context.Background(), level, message, attrs...)
		return
	}
	was := v.said[topic]
	if was.failures == 0 {
		was = repeated{}
	}
	cause := causeIn(attrs)
	silence := repeatSilence
	if cause != was.cause {
		silence = anotherSilence
	}
	was.failures++
	if was.message == message && time.Since(was.at) < silence {
		was.unsaid++
		v.said[topic] = was
		return
	}
	if was.unsaid > 0 {
		attrs = append(attrs, "seen", fmt.Sprintf("%d× since the last such line", was.unsaid+1))
	}
	v.said[topic] = repeated{message: message, cause: cause, at: time.Now(), failures: was.failures}
	v.Log.Log(context.Background(), level, message, attrs...)
}

// causeIn returns the text of the error among the attributes of a log line.
func causeIn(attrs []any) string {
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i] == "err" {
			return fmt.Sprint(attrs[i+1])
		}
	}
	return ""
}
