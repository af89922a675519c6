package watchdog

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/policy"
)

// How long a failure that repeats itself is only counted: the very same for
// longer than one whose error reads differently each time.
const (
	repeatSilence  = 10 * time.Minute
	anotherSilence = time.Minute
)

// repeated is what the log said last about one matter, so that an error at every
// turn does not flood it.
type repeated struct {
	message, cause string
	at             time.Time
	unsaid         int // failures since then
	failures       int // in a row
}

// voice is the log of one database. The database's baton guards it.
type voice struct {
	log  *slog.Logger
	said map[string]repeated // by matter: a policy's action, or the opening
}

// failing reports whether the last thing said of the matter was a failure.
func (v *voice) failing(matter string) bool { return v.said[matter].failures > 0 }

// hindered logs that a policy does not come to do what it is for, and that it does
// again. One line, repeated every ten minutes while that lasts.
func (v *voice) hindered(db string, p policy.PolicyDecision) {
	matter := p.Policy + " hindered"
	if p.Hindered != "" {
		v.say(matter, slog.LevelWarn, true, "this policy cannot do all that it is for", "policy", p.Policy, "err", p.Hindered,
			"next", "see `sqlwatch why "+db+" "+p.Policy+"`")
	} else if v.failing(matter) {
		v.say(matter, slog.LevelInfo, false, "this policy is no longer hindered", "policy", p.Policy)
	}
}

// say logs how something ended that is tried again and again. Failures of one
// matter in a row are summed up ("seen 431×"), and so is their end.
func (v *voice) say(matter string, level slog.Level, failed bool, message string, attrs ...any) {
	if !failed {
		if was := v.said[matter]; was.failures > 0 {
			attrs = append(attrs, "failures_before", was.failures)
		}
		delete(v.said, matter)
		v.log.Log(context.Background(), level, message, attrs...)
		return
	}
	was := v.said[matter]
	cause := causeIn(attrs)
	silence := repeatSilence
	if cause != was.cause {
		silence = anotherSilence
	}
	was.failures++
	if was.message == message && time.Since(was.at) < silence {
		was.unsaid++
		v.said[matter] = was
		return
	}
	if was.unsaid > 0 {
		attrs = append(attrs, "seen", fmt.Sprintf("%d× since the last such line", was.unsaid+1))
	}
	v.said[matter] = repeated{message: message, cause: cause, at: time.Now(), failures: was.failures}
	v.log.Log(context.Background(), level, message, attrs...)
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
