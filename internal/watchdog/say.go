package watchdog

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

// repeated is what the log said last about one matter, so that an error at every
// turn does not flood it.
type repeated struct {
	message, cause string
	at             time.Time
	unsaid         int // failures since then
	failures       int // in a row
}

// say logs how something ended that is tried again and again. Failures of one
// matter in a row are summed up ("seen 431×"), and so is their end.
func (d *database) say(matter string, level slog.Level, failed bool, message string, attrs ...any) {
	if !failed {
		if was := d.said[matter]; was.failures > 0 {
			attrs = append(attrs, "failures_before", was.failures)
		}
		delete(d.said, matter)
		d.log().Log(context.Background(), level, message, attrs...)
		return
	}
	was := d.said[matter]
	cause := causeIn(attrs)
	silence := repeatSilence
	if cause != was.cause {
		silence = anotherSilence
	}
	was.failures++
	if was.message == message && time.Since(was.at) < silence {
		was.unsaid++
		d.said[matter] = was
		return
	}
	if was.unsaid > 0 {
		attrs = append(attrs, "seen", fmt.Sprintf("%d× since the last such line", was.unsaid+1))
	}
	d.said[matter] = repeated{message: message, cause: cause, at: time.Now(), failures: was.failures}
	d.log().Log(context.Background(), level, message, attrs...)
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
