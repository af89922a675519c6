package web

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

//go:embed page.html
var pageText string

// maxRows is how many databases the page shows; those with something to say come first.
const maxRows = 300

// statusPage is the page at /. It is complete without scripts; the one script
// only fetches it again and swaps its main part.
type statusPage struct {
	watchdog      *watchdog.Watchdog
	version       string
	template      *template.Template
	contentPolicy string
}

func newStatusPage(w *watchdog.Watchdog, version string) *statusPage {
	funcs := template.FuncMap{
		"bytes":  func(n int64) string { return humanize.IBytes(uint64(max(n, 0))) },
		"free":   humanize.IBytes,
		"count":  func(n uint32) string { return humanize.Comma(int64(n)) },
		"number": func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) },
		"ago":    ago,
		"span":   rounded,
		"short":  func(d time.Duration) string { return d.Round(100 * time.Microsecond).String() },
		"clock":  func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") },
		"hour":   func(t time.Time) string { return t.Local().Format("Mon 15:04:05") },
		"lag":    func(seconds float64) string { return rounded(time.Duration(seconds * float64(time.Second))) },
	}
	return &statusPage{
		watchdog:      w,
		version:       version,
		template:      template.Must(template.New("page").Funcs(funcs).Parse(pageText)),
		contentPolicy: contentPolicy(pageText),
	}
}

// contentPolicy allows the page's own style and script by their hash, and nothing else.
func contentPolicy(page string) string {
	hash := func(element string) string {
		inner := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindStringSubmatch(page)
		if inner == nil {
			return "'none'"
		}
		sum := sha256.Sum256([]byte(inner[1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash("style") + "; script-src " + hash("script") +
		"; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

type pageData struct {
	Version       string
	Title         string
	Verdict       string // what a person wants to know first
	Level         level  // of the worst database
	At            time.Time
	Up            time.Duration
	Total, Hidden int
	One           bool // a single database was asked for
	Open          bool // also what is well is shown in full
	Rows          []row
}

// level is how a database fares.
type level string

const (
	good level = "good"
	warn level = "warn" // somebody should look, at daytime
	bad  level = "bad"
)

var badness = map[level]int{good: 0, warn: 1, bad: 2}

// row is one database on the page.
type row struct {
	*watchdog.DatabaseStatus
	State    string
	Level    level
	Problems []string
	Warnings []string
	Summary  string // at the end of its line

	InUse, Moved, Backlog int64 // bytes of WAL frames: all, in the database already, and not yet

	UsedPercent, MovedPercent, BacklogPercent float64 // of the WAL file
}

// openRows is up to how many databases are all shown in full.
const openRows = 6

// ServeHTTP shows all databases, or with ?db=NAME one of them.
func (p *statusPage) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	chosen, err := choose(p.watchdog, r)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusNotFound)
		return
	}
	var page bytes.Buffer
	if err := p.template.Execute(&page, p.data(chosen, r.URL.Query().Get("db") != "")); err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "text/html; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	page.WriteTo(rw)
}

// data is what the template shows.
func (p *statusPage) data(chosen []*watchdog.DatabaseStatus, one bool) pageData {
	status := p.watchdog.Status()
	data := pageData{Version: p.version, At: status.At, Up: status.At.Sub(status.Started).Round(time.Second), Total: len(chosen), One: one, Open: len(chosen) <= openRows}
	for _, d := range chosen {
		data.Rows = append(data.Rows, newRow(d, status.At))
	}
	sortRows(data.Rows)
	data.Level, data.Verdict = verdict(data.Rows)
	data.Title = map[level]string{good: "✔", warn: "▲", bad: "✖"}[data.Level] + " sqlwatch: " + data.Verdict
	if len(data.Rows) > maxRows {
		data.Hidden = len(data.Rows) - maxRows
		data.Rows = data.Rows[:maxRows]
	}
	return data
}

// sortRows puts what is worst first.
func sortRows(rows []row) {
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(badness[b.Level], badness[a.Level]) })
}

// verdict sums up the rows, the worst first, in one line.
func verdict(rows []row) (level, string) {
	if len(rows) == 0 {
		return warn, "No database is watched"
	}
	worst := rows[0].Level
	if worst == good {
		if len(rows) == 1 {
			return good, rows[0].Name + " is well"
		}
		return good, fmt.Sprintf("All %d databases are well", len(rows))
	}
	var names []string
	for _, r := range rows {
		if r.Level == worst {
			names = append(names, r.Name)
		}
	}
	what := map[level]string{warn: "worth a look", bad: "in trouble"}[worst]
	if len(names) > 3 {
		return worst, fmt.Sprintf("%d of %d databases are %s", len(names), len(rows), what)
	}
	if len(names) == 1 {
		return worst, names[0] + " is " + what
	}
	return worst, strings.Join(names, ", ") + " are " + what
}

func newRow(d *watchdog.DatabaseStatus, now time.Time) row {
	r := row{DatabaseStatus: d, State: "starting", Level: good}
	if d.Err != "" {
		r.Problems = append(r.Problems, d.Err)
	}
	if s := d.Sample; s != nil {
		r.State = s.State.String()
		r.measure(s, now)
	}
	if !d.PausedUntil.IsZero() {
		r.Warnings = append(r.Warnings, "Policies are paused until "+d.PausedUntil.Local().Format(time.DateTime)+".")
	}
	if len(d.Actions) > 0 && !d.Actions[0].OK {
		a := d.Actions[0]
		r.Warnings = append(r.Warnings, strings.TrimSpace(fmt.Sprintf("The last %s ended %s. %s", a.Action, a.Outcome, a.Advice)))
	}
	r.Summary = "last write " + "not seen"
	if d.Running != "" {
		r.Summary = "running " + d.Running
	} else if d.Sample != nil {
		r.Summary = "last write " + ago(now, d.Sample.WAL.LastWrite)
	}
	switch {
	case len(r.Problems) > 0:
		r.Level = bad
	case len(r.Warnings) > 0:
		r.Level = warn
	}
	return r
}

// measure takes over what the sample says.
func (r *row) measure(s *collector.Sample, now time.Time) {
	if len(r.Problems) == 0 && s.State != collector.StateUp {
		r.Problems = append(r.Problems, s.Err)
	}
	r.InUse = int64(s.WAL.Frames) * int64(s.WAL.PageSize)
	r.Backlog = int64(s.WAL.BacklogFrames()) * int64(s.WAL.PageSize)
	r.Moved = r.InUse - r.Backlog
	file := float64(max(s.WAL.SizeBytes, r.InUse, 1))
	r.UsedPercent, r.MovedPercent, r.BacklogPercent = 100*float64(r.InUse)/file, 100*float64(r.Moved)/file, 100*float64(r.Backlog)/file
	for _, replica := range s.Replicas {
		if !replica.Healthy {
			r.Problems = append(r.Problems, strings.TrimSpace("Replica "+replica.Name+" does not advance. "+replica.Err))
		}
	}
	if pinned := now.Sub(s.Readers.PinnedSince); !s.Readers.PinnedSince.IsZero() && pinned >= pinnedWorth {
		who := "A reader"
		if s.Readers.OldestPID > 0 {
			who = strings.TrimSpace(fmt.Sprintf("pid %d %s", s.Readers.OldestPID, s.Readers.OldestCommand))
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("%s has pinned the WAL at frame %d for %s: end its read transaction, or see sqlwatch blockers %s.",
			who, s.Readers.OldestFrame, rounded(pinned), s.DB))
	}
}

// pinnedWorth is how long a reader pins the WAL before it is worth a word:
// ordinary queries are over by then.
const pinnedWorth = 5 * time.Second

// ago says how long ago t was.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "not seen"
	}
	return rounded(now.Sub(t)) + " ago"
}

// rounded shows a duration with the precision that a person wants.
func rounded(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Millisecond).String()
}
