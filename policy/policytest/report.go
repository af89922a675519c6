package policytest

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/sqlwatch/sqlwatch/policy/lang/amounts"
)

// Report has the results of tests and, if it was asked for, their coverage. In JSON it is
// the array of results; with the coverage, an object with both.
type Report struct {
	Tests    []TestResult `json:"tests"`
	Coverage *Coverage    `json:"coverage"` // nil: not asked for
}

// RunAll runs tests one after another. Each adds what it has seen to coverage, which may be
// nil.
func RunAll(tests []*Test, coverage *Coverage) Report {
	r := Report{Tests: make([]TestResult, len(tests)), Coverage: coverage}
	for i, t := range tests {
		r.Tests[i] = t.RunCovered(coverage)
	}
	return r
}

// Failed returns how many tests failed.
func (r Report) Failed() (n int) {
	for _, t := range r.Tests {
		if len(t.Failures) > 0 {
			n++
		}
	}
	return n
}

// MarshalJSON implements json.Marshaler.
func (r Report) MarshalJSON() ([]byte, error) {
	if r.Coverage == nil {
		return json.Marshal(r.Tests)
	}
	type both Report // without this method
	return json.Marshal(both(r))
}

// Write writes the result of each test, how many passed and failed, and the coverage.
func (r Report) Write(w io.Writer) error {
	for _, t := range r.Tests {
		t.Write(w)
	}
	_, err := fmt.Fprintf(w, "%d passed, %d failed\n", len(r.Tests)-r.Failed(), r.Failed())
	r.Coverage.Write(w)
	return err
}

// Write lists what no test has seen.
func (c *Coverage) Write(w io.Writer) {
	if c == nil {
		return
	}
	gaps := c.Gaps()
	if len(gaps) == 0 {
		fmt.Fprintln(w, "The tests have seen every policy act, every guard refuse, and every condition true and false.")
		return
	}
	fmt.Fprintln(w, "No test has seen:")
	for _, gap := range gaps {
		fmt.Fprintf(w, "  %s\n", gap)
	}
}

// Write writes a line for a test and, for every expectation that was
// not met, what was expected (-) and what was found (+).
func (r TestResult) Write(w io.Writer) {
	word := "pass"
	if len(r.Failures) > 0 {
		word = "FAIL"
	}
	fmt.Fprintf(w, "%s  %s (%s simulated, runs = %d, WAL up to %s, longest stall %s)\n", word, r.Name, r.Length, r.Runs,
		amounts.HumanBytes(float64(r.MaxWAL)), r.MaxStall.Round(100*time.Microsecond))
	if r.Pinned > 0 {
		fmt.Fprintf(w, "      for %s readers kept the WAL that stayed over a minute: how far it grows then no policy "+
			"decides (otherwise up to %s)\n", r.Pinned, amounts.HumanBytes(float64(r.FreeWAL)))
	}
	for _, f := range r.Failures {
		fmt.Fprintf(w, "      %s:%d:%d: expected at %s, %s after the start\n", f.Place.File, f.Place.Line, f.Place.Column,
			f.At.Format(time.RFC3339), f.After)
		for _, m := range f.Mismatches {
			fmt.Fprintf(w, "        - %s = %s\n        + %s = %s\n", m.Attribute, m.Want, m.Attribute, m.Got)
		}
		fmt.Fprintf(w, "        the policy says: %s\n", f.Reason)
	}
}
