// Package voice is the log of one database: what repeats itself at every turn is said
// seldom, and counted.
package voice

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// How long a failure that repeats itself is only counted: the very same for
// longer than one whose error reads differently each time.
const (
	repeatSilence  = 10 * time.Minute
	anotherSilence = time.Minute
)

// repeated is what the log said last about one topic, so that an error at every
// turn does not flood it.
type repeated struct {
	message, cause string
	at             time.Time
	unsaid         int // failures since then
	failures       int // in a row
}

// Voice is the log of one database. Its owner guards it.
type Voice struct {
	Log  *slog.Logger
	said map[string]repeated // by topic: a policy's action, or the opening
}

// New returns a Voice that has said nothing yet.
func New(log *slog.Logger) Voice { return Voice{Log: log, said: map[string]repeated{}} }

// Failing reports whether the last thing said of the topic was a failure.
func (v *Voice) Failing(topic string) bool { return v.said[topic].failures > 0 }

// Routine logs what goes well again and again, as a PASSIVE checkpoint each ten seconds:
// once, and then every ten minutes how often.
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

// Say logs how something ended that is tried again and again. Failures of one
// topic in a row are summed up ("seen 431×"), and so is their end.
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

// causeIn returns the text of the error among a line's attributes.
func causeIn(attrs []any) string {
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i] == "err" {
			return fmt.Sprint(attrs[i+1])
		}
	}
	return ""
}
