package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

// Databases is what /api/v1/databases answers.
type Databases struct {
	At        time.Time                  `json:"at"`
	Started   time.Time                  `json:"started"`
	Databases []*watchdog.DatabaseStatus `json:"databases"`
}

// Decisions is what /api/v1/decisions answers: for each database what every policy
// says and why, what changed its mind lately, and what was done.
type Decisions struct {
	At        time.Time           `json:"at"`
	Decisions []DatabaseDecisions `json:"decisions"`
}

// DatabaseDecisions is one database's share of Decisions. Asked for one database
// (?db=NAME), the decision holds the tree of values.
type DatabaseDecisions struct {
	DB       string                  `json:"db"`
	Decision any                     `json:"decision"` // a policy.Decision, or null before the first turn
	Changes  []watchdog.ChangeRecord `json:"changes"`
	Actions  []watchdog.ActionRecord `json:"actions"`
}

func healthy(w *watchdog.Watchdog) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(rw, "sqlwatch is healthy.")
		for _, name := range w.Overdue() { // a restart would not make their disk answer
			fmt.Fprintf(rw, "%s has not answered for a minute.\n", name)
		}
	}
}

// Health is what /api/v1/health answers: every condition of the daemon and of each
// database. Lists are never null.
type Health struct {
	At         time.Time          `json:"at"`
	Started    time.Time          `json:"started"`
	Severity   health.Severity    `json:"severity"`   // the worst of all; "": none
	Conditions []health.Condition `json:"conditions"` // of the daemon itself
	LeftOut    []health.LeftOut   `json:"left_out"`
	Databases  []DatabaseHealth   `json:"databases"`
}

// DatabaseHealth is one database's share of Health.
type DatabaseHealth struct {
	Name       string             `json:"name"`
	Severity   health.Severity    `json:"severity"`
	Conditions []health.Condition `json:"conditions"`
}

// healthNow gathers what holds now.
func healthNow(w *watchdog.Watchdog, chosen []*watchdog.DatabaseStatus, itself Itself) Health {
	status := w.Status()
	h := Health{
		At: status.At, Started: status.Started, Databases: []DatabaseHealth{},
		Conditions: append([]health.Condition{}, itself.Conditions...),
		LeftOut:    append([]health.LeftOut{}, itself.LeftOut...),
	}
	all := h.Conditions
	for _, d := range chosen {
		h.Databases = append(h.Databases, DatabaseHealth{Name: d.Name, Severity: health.Worst(d.Conditions),
			Conditions: d.Conditions})
		all = append(all, d.Conditions...)
	}
	h.Severity = health.Worst(all)
	return h
}

func healthOf(w *watchdog.Watchdog, itself func() Itself) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		chosen, err := choose(w, r)
		if err != nil {
			refuse(rw, err)
			return
		}
		reply(rw, healthNow(w, chosen, itself()))
	}
}

func ready(w *watchdog.Watchdog, itself func() Itself) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		if !w.Ready() {
			http.Error(rw, "sqlwatch is starting: not every database has been sampled yet.", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(rw, "sqlwatch is ready.")
		h := healthNow(w, w.Status().Databases, itself())
		for _, c := range h.Conditions {
			fmt.Fprintf(rw, "sqlwatch: %s\n", c)
		}
		for _, d := range h.Databases {
			for _, c := range d.Conditions {
				fmt.Fprintf(rw, "%s: %s\n", show.Text(d.Name), c)
			}
		}
	}
}

func databases(w *watchdog.Watchdog) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		chosen, err := choose(w, r)
		if err != nil {
			refuse(rw, err)
			return
		}
		status := w.Status()
		reply(rw, Databases{At: status.At, Started: status.Started, Databases: chosen})
	}
}

func decisions(w *watchdog.Watchdog) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		chosen, err := choose(w, r)
		if err != nil {
			refuse(rw, err)
			return
		}
		out := Decisions{At: w.Status().At, Decisions: []DatabaseDecisions{}}
		for _, d := range chosen {
			one := DatabaseDecisions{DB: d.Name, Decision: d.Decision, Changes: d.Changes, Actions: d.Actions}
			if r.FormValue("db") != "" && d.Decision != nil {
				one.Decision = explain(r.Context(), w, d)
			}
			out.Decisions = append(out.Decisions, one)
		}
		reply(rw, out)
	}
}

// explainWithin bounds how long a request waits for a database that is at work.
const explainWithin = 2 * time.Second

// explain returns the last decision with its tree of values, or without it while
// the database is at work for longer.
func explain(ctx context.Context, w *watchdog.Watchdog, d *watchdog.DatabaseStatus) any {
	ctx, cancel := context.WithTimeout(ctx, explainWithin)
	defer cancel()
	if decision, err := w.Explain(ctx, d.Name); err == nil {
		return decision
	}
	return d.Decision
}

// choose returns the database that the request names, or all. The name is looked
// up among the configured ones; it reaches no file system.
func choose(w *watchdog.Watchdog, r *http.Request) ([]*watchdog.DatabaseStatus, error) {
	name := r.URL.Query().Get("db")
	if name == "" {
		return w.Status().Databases, nil
	}
	d, err := w.Database(name)
	if err != nil {
		return nil, err
	}
	return []*watchdog.DatabaseStatus{d}, nil
}

func reply(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.Header().Set("Cache-Control", "no-store")
	text, err := show.Marshal(v)
	if err != nil {
		refuse(rw, err)
		return
	}
	rw.Write(append(text, '\n')) // an error here is the client gone
}

// refuse answers with an error as {"error": "…"}, which is what the commands read.
func refuse(rw http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, watchdog.ErrUnknownDatabase):
		code = http.StatusNotFound
	case errors.Is(err, watchdog.ErrUnavailable), errors.Is(err, watchdog.ErrBadRequest):
		code = http.StatusBadRequest
	case errors.Is(err, errPeer):
		code = http.StatusForbidden
	case errors.Is(err, watchdog.ErrEnded):
		code = http.StatusServiceUnavailable
	}
	rw.Header().Set("Content-Type", "application/json; charset=utf-8")
	rw.WriteHeader(code)
	json.NewEncoder(rw).Encode(map[string]string{"error": err.Error()})
}
