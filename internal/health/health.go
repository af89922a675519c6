// Package health answers the operator's one question: is everything all right, and if not,
// what do I do? Its input is what was measured of a database, its replicas and the daemon; its
// output are conditions. The page, the commands, the metrics, the API and the alerts show
// these conditions and judge nothing themselves.
package health

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Severity says how soon somebody must look.
type Severity string

// The severities.
const (
	Info     Severity = "info"     // good to know, no action needed
	Warning  Severity = "warning"  // somebody should look during working hours
	Critical Severity = "critical" // act now: commits may be lost, or the application is harmed
)

// rank orders severities, the worst highest.
func (s Severity) rank() int {
	return slices.Index([]Severity{Info, Warning, Critical}, s)
}

// Condition is one thing that an operator should know. It is immutable.
type Condition struct {
	ID       string    `json:"id"`                // of Kinds
	Subject  string    `json:"subject,omitempty"` // which replica, as "s3.main"; empty: the database itself
	Severity Severity  `json:"severity"`
	What     string    `json:"what"`  // what happened, one sentence
	Why      string    `json:"why"`   // why that is so, or why it matters, one sentence
	Cure     string    `json:"cure"`  // one command or one setting
	Since    time.Time `json:"since"` // when it was first seen
}

// String returns the condition on one line.
func (c Condition) String() string {
	return fmt.Sprintf("%s %s: %s %s → %s", c.Severity, c.ID, c.What, c.Why, c.Cure)
}

// closer ends a cure that refers to doctor for more. The cure says something of its own before that.
const closer = "; sqlwatch doctor DB looks closer"

var closerShown = regexp.MustCompile("; `?sqlwatch doctor .+ (?:looks closer|compares the two)$")

// InDoctor returns conditions for doctor itself: without the advice to run doctor.
func InDoctor(conditions []Condition) []Condition {
	shown := append([]Condition{}, conditions...)
	for i := range shown {
		shown[i].Cure = closerShown.ReplaceAllString(shown[i].Cure, "")
	}
	return shown
}

// Worst returns the severity of the worst condition, "" where there is none.
func Worst(conditions []Condition) Severity {
	worst := Severity("")
	for _, c := range conditions {
		if worst == "" || c.Severity.rank() > worst.rank() {
			worst = c.Severity
		}
	}
	return worst
}

// Wrong reports whether somebody must act on one of the conditions: then a command that shows
// them exits with 2.
func Wrong(conditions []Condition) bool { return AtLeast(conditions, Warning) }

// AtLeast reports whether one of the conditions is at least as severe as least.
func AtLeast(conditions []Condition, least Severity) bool {
	return Worst(conditions).rank() >= least.rank()
}

// Compare orders conditions, the worst first.
func Compare(a, b Condition) int {
	return cmp.Or(b.Severity.rank()-a.Severity.rank(), strings.Compare(a.ID, b.ID), strings.Compare(a.Subject, b.Subject))
}

// findings gathers the conditions of one database or of the daemon.
type findings struct {
	db  string // as it is written in a command
	all []Condition
}

// add notes a condition. In the cure, DB stands for the database's name.
func (f *findings) add(id string, severity Severity, what, why, cure string) {
	f.about(id, "", severity, what, why, cure)
}

// about is add for one replica.
func (f *findings) about(id, subject string, severity Severity, what, why, cure string) {
	f.all = append(f.all, Condition{
		ID: id, Subject: show.Text(subject), Severity: severity,
		What: show.Text(what), Why: show.Text(why), Cure: show.Text(strings.ReplaceAll(cure, "DB", show.Quote(f.db))),
	})
}

// sorted returns the conditions, the worst first; never nil.
func (f *findings) sorted() []Condition {
	if f.all == nil {
		return []Condition{}
	}
	slices.SortStableFunc(f.all, Compare)
	return f.all
}

// sentence ends a text with a full stop and begins it with a capital letter.
func sentence(s string) string {
	s = strings.TrimSpace(s)
	if s == "" {
		return ""
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
