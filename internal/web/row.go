package web

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
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

// row is one database on the page.
type row struct {
	*watchdog.DatabaseStatus
	ID     string
	Level  level
	Open   bool   // with its details
	One    bool   // and with all that is remembered of it
	Health string // in few words

	Size     int64
	WAL      walPicture
	Readers  string
	Replicas []replicaCell
	Policies string

	HTML  template.HTML
	since time.Time
}

// walPicture is how far a WAL is filled, copied and held.
type walPicture struct {
	Known                 bool
	FileBytes             int64
	InUse, Moved, Backlog int64 // bytes of frames: all, in the database already, and not yet

	UsedPercent, MovedPercent, BacklogPercent, ReaderPercent float64 // of the file
}

func newWALPicture(s *collector.Sample) walPicture {
	w := walPicture{Known: s.WAL.Known, FileBytes: s.WAL.SizeBytes}
	w.InUse = int64(s.WAL.Frames) * int64(s.WAL.PageSize)
	w.Backlog = int64(s.WAL.BacklogFrames()) * int64(s.WAL.PageSize)
	w.Moved = w.InUse - w.Backlog
	file := float64(max(s.WAL.SizeBytes, w.InUse, 1))
	percent := func(n int64) float64 { return float64(int(1000*float64(n)/file)) / 10 }
	w.UsedPercent, w.MovedPercent, w.BacklogPercent = percent(w.InUse), percent(w.Moved), percent(w.Backlog)
	w.ReaderPercent = percent(int64(s.Readers.OldestFrame) * int64(s.WAL.PageSize))
	return w
}

// replicaCell is one replica in the database's line.
type replicaCell struct {
	Name, Fresh string
	Level       level
}

func newRow(d *watchdog.DatabaseStatus, one, open bool) row {
	r := row{DatabaseStatus: d, ID: "db-" + d.Name, One: one, Open: open, Level: good, Health: "✔ well"}
	switch worst := levelOf(health.Worst(d.Conditions)); worst {
	case bad, warn:
		r.Level = worst
		r.Health = map[level]string{warn: "▲ ", bad: "✖ "}[worst] + strings.ReplaceAll(d.Conditions[0].ID, "_", " ")
		if n := len(d.Conditions); n > 1 {
			r.Health += fmt.Sprintf(" and %d more", n-1)
		}
	case info:
		r.Health = "✔ " + strings.ReplaceAll(d.Conditions[0].ID, "_", " ")
	}
	if d.Sample == nil && r.Level == good {
		r.Health = "starting"
	}
	if d.Sample != nil {
		r.measure(d.Sample)
	}
	r.Policies = policiesOf(d)
	return r
}

// measure takes over what the sample says.
func (r *row) measure(s *collector.Sample) {
	r.Size, r.WAL = s.Database.SizeBytes, newWALPicture(s)
	if s.WAL.Known {
		r.Readers = fmt.Sprint(s.Readers.Active)
	}
	for _, replica := range s.Replicas {
		r.Replicas = append(r.Replicas, newReplicaCell(&replica))
	}
}

func newReplicaCell(r *collector.Replica) replicaCell {
	cell := replicaCell{Name: r.Name, Fresh: "current", Level: good}
	switch {
	case r.CaughtUp.IsZero():
		cell.Fresh, cell.Level = "not complete yet", info
	case r.LagSeconds > max(2*r.ObjectiveSeconds+3, 5):
		cell.Fresh, cell.Level = show.Seconds(r.LagSeconds)+" behind", warn
	}
	if !r.Healthy {
		cell.Level = bad
	}
	return cell
}

// policiesOf says what the policies are at, in few words.
func policiesOf(d *watchdog.DatabaseStatus) string {
	switch {
	case d.Running != "":
		return "running " + d.Running
	case d.Decision == nil:
		return ""
	}
	var all []string
	for _, p := range d.Decision.Policies {
		switch {
		case p.Refused != "":
			all = append(all, p.Policy+" refused by "+string(p.Refused))
		case p.Phase != "inactive":
			all = append(all, p.Policy+" "+string(p.Phase))
		}
	}
	if len(all) == 0 && len(d.Decision.Policies) > 0 {
		return "quiet"
	}
	return strings.Join(all, ", ")
}
