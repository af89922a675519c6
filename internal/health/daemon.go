package health

import (
	"fmt"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Daemon is what is known of the daemon itself.
type Daemon struct {
	Down        string // why the daemon does not answer; empty: it does
	ReloadErr   string // why the last reload was refused
	Databases   int    // watched
	LeftOut     []LeftOut
	Faults      int // panics of request handlers since the start
	LostNotices map[string]string
	State       collector.Disk // of the state directory's file system; zero: not known
}

// LeftOut is a database of the configuration that is not watched, or a glob that matches too many files.
type LeftOut struct {
	Place string `json:"place"` // the path, or the glob
	Why   string `json:"why"`
	Count int    `json:"count"` // of files, if there is more than one
}

// OfDaemon returns the conditions of the daemon, the worst first.
func OfDaemon(d Daemon) []Condition {
	f := &findings{}
	if d.Down != "" {
		f.add("daemon_down", Critical, sentence("No daemon answers: "+
			strings.TrimPrefix(d.Down, "no sqlwatch daemon answers: ")),
			"Nothing is measured, replicated or checkpointed; what is shown comes from a single look at the files.",
			"systemctl status sqlwatch, then: sqlwatch run")
		return f.sorted()
	}
	if d.ReloadErr != "" {
		f.add("reload_failed", Warning, sentence("The new configuration was rejected: "+firstLine(d.ReloadErr)),
			"The previous one stays in force; the next start will fail unless the files are corrected.",
			"sqlwatch check, then: sqlwatch reload")
	}
	if d.Databases == 0 {
		f.add("no_databases", Warning, "No database is watched.", "The configuration names none, or its globs match no file.",
			"sqlwatch check")
	}
	f.leftOut(d.LeftOut)
	if s := d.State; s.ReadOnly || s.ReadOnlyHere {
		cure := writable(s.Mountpoint)
		if s.ReadOnlyHere {
			cure = writableHere
		}
		f.add("state_directory_read_only", Critical,
			"The file system at "+s.Mountpoint+", which holds the state directory, is read-only.",
			"Commits are kept there until they are uploaded: nothing new is replicated.", cure)
	}
	if d.Faults > 0 {
		f.add("handler_panicked", Warning, fmt.Sprintf("Because of a bug in sqlwatch %s failed since its start.",
			show.Count(d.Faults, "request")),
			"Everything else continues.", "report the stack trace in sqlwatch's log")
	}
	for name, err := range d.LostNotices {
		f.about("notification_failed", name, Warning, sentence("Notifier "+name+" did not accept the last message: "+err),
			"It is retried for an hour; the message itself is in sqlwatch's log.",
			"sqlwatch notify test "+show.Quote(name)+", and correct the notifier's block")
	}
	return f.sorted()
}

// Files returns how many files are not watched.
func Files(all []LeftOut) (n int) {
	for _, l := range all {
		n += max(1, l.Count)
	}
	return n
}

func (f *findings) leftOut(all []LeftOut) {
	files := Files(all)
	if files == 0 {
		return
	}
	what := fmt.Sprintf("%s is not watched: %s", all[0].Place, all[0].Why)
	if files > 1 {
		what = fmt.Sprintf("%d databases are not watched, the first: %s", files, what)
	}
	f.add("left_out", Warning, sentence(what),
		"A database that is already watched keeps its name, its replica and its path; a new one cannot take them over.",
		"correct path, glob or name in the configuration, then: sqlwatch reload")
}

// firstLine returns the first line of text that says something, together with the next one if
// the first only announces it.
func firstLine(text string) string {
	first, rest, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if strings.HasSuffix(first, ":") {
		if next, _, _ := strings.Cut(strings.TrimSpace(rest), "\n"); next != "" {
			return first + " " + next
		}
	}
	return first
}

// Unreachable returns the daemon's conditions if it does not answer, for a command that looked at now.
func Unreachable(why string, now time.Time) []Condition {
	all := OfDaemon(Daemon{Down: show.Text(why)})
	for i := range all {
		all[i].Since = now
	}
	return all
}
