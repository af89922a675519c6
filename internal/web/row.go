package web

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/figures"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// level is how a database fares, as the page's style knows it.
type level string

const (
	good level = "good"
	info level = "info"
	warn level = "warn"
	bad  level = "bad"
)

var badness = map[level]int{good: 0, info: 0, warn: 1, bad: 2}

func levelOf(s health.Severity) level {
	switch s {
	case health.Critical:
		return bad
	case health.Warning:
		return warn
	case health.Info:
		return info
	}
	return good
}

// marks stand before a level's words: colour is not the only sign.
var marks = map[level]string{good: "✔", info: "✔", warn: "▲", bad: "✖"}

// row is one database on the page.
type row struct {
	*watchdog.DatabaseStatus
	ID     string
	Level  level
	Open   bool              // with its details
	One    bool              // and with all that is remembered of it
	Health string            // in few words
	Worst  *health.Condition // where it is wrong: what a person must know first
	More   int               // conditions beside that

	Size     int64
	WAL      walPicture
	Readers  string
	Pins     string
	Replicas []replicaCell
	Policies []string
	Weeks    []week // of learned windows, where it is the one

	HTML  template.HTML
	since time.Time
}

func newRow(d *watchdog.DatabaseStatus, one, open bool) row {
	r := row{DatabaseStatus: d, ID: "db-" + d.Name, One: one, Open: open, Level: good, Health: "well"}
	switch worst := levelOf(health.Worst(d.Conditions)); worst {
	case bad, warn:
		r.Level, r.Worst, r.More = worst, &d.Conditions[0], len(d.Conditions)-1
		r.Health = strings.ReplaceAll(r.Worst.ID, "_", " ")
	case info:
		r.Health = "well: " + strings.ReplaceAll(d.Conditions[0].ID, "_", " ")
	}
	if d.Sample == nil && r.Level == good {
		r.Health = "starting"
	}
	if d.Sample != nil {
		limit := 0.0
		if d.Decision != nil {
			limit = d.Decision.WALLimit
		}
		r.measure(d.Sample, limit)
	}
	r.Policies = policiesOf(d)
	return r
}

// measure takes over what the sample says. A policy makes the WAL smaller beyond limit bytes.
func (r *row) measure(s *collector.Sample, limit float64) {
	r.Size, r.WAL = s.Database.SizeBytes, newWALPicture(s, limit)
	r.Readers, r.Pins = figures.Readers(s)
	for i := range s.Replicas {
		r.Replicas = append(r.Replicas, newReplicaCell(s, &s.Replicas[i]))
	}
}

// walPicture is how far a WAL is filled, copied and held. Of the file: how much is
// frames, how much of these is in the database; and the file of what it may have.
type walPicture struct {
	figures.WAL
	Level level

	UsedPercent, MovedPercent, BacklogPercent, ReaderPercent float64 // of the file
	FilePercent                                              float64 // of the limit
}

func newWALPicture(s *collector.Sample, limit float64) walPicture {
	w := walPicture{WAL: figures.WALOf(s, limit), Level: good}
	if w.Oversized() {
		w.Level = warn
	}
	percent := func(n, of int64) float64 { return float64(min(n, of)*1000/max(of, 1)) / 10 }
	file := max(w.FileBytes, w.InUse)
	w.UsedPercent, w.MovedPercent, w.BacklogPercent = percent(w.InUse, file), percent(w.Moved, file),
		percent(w.Backlog, file)
	w.ReaderPercent, w.FilePercent = percent(w.OldestFrame, file), percent(w.FileBytes, w.LimitBytes)
	return w
}

// replicaCell is one replica in the database's line.
type replicaCell struct {
	*collector.Replica
	Fresh string
	Level level
	Hour  sparkline
	Drill string
	Cost  string
}

func newReplicaCell(s *collector.Sample, r *collector.Replica) replicaCell {
	cell := replicaCell{Replica: r, Level: good, Hour: newSparkline(r), Drill: figures.Drill(r), Cost: figures.Cost(r)}
	late := false
	cell.Fresh, late = figures.Freshness(s, r)
	switch {
	case !r.Healthy:
		cell.Level = bad
	case late:
		cell.Level = warn
	case r.CaughtUp.IsZero():
		cell.Level = info
	}
	return cell
}

// policiesOf says what the policies are at, in few words each.
func policiesOf(d *watchdog.DatabaseStatus) (all []string) {
	switch {
	case d.Running != "":
		return []string{"running " + d.Running}
	case d.Decision == nil:
		return nil
	}
	for _, p := range d.Decision.Policies {
		switch {
		case p.Refused != "":
			all = append(all, p.Policy+" refused by "+string(p.Refused))
		case p.Phase != "inactive":
			all = append(all, p.Policy+" "+string(p.Phase))
		}
	}
	if len(all) == 0 && len(d.Decision.Policies) > 0 {
		return []string{fmt.Sprintf("%d at rest", len(d.Decision.Policies))}
	}
	return all
}
