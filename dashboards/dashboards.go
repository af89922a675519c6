// Package dashboards describes the Grafana dashboards of sqlwatch in Go. The JSON files in
// its directory are generated from it:
//
//	go generate ./dashboards
//
// Queries contain two placeholders for label matchers: @db matches job, instance and db as
// chosen on the dashboard; @instance matches job and instance only, for metrics that belong
// to no database.
package dashboards

import "strings"

//go:generate go test -run TestGolden -update .

// Board is one dashboard.
type Board struct {
	UID, Title, Description string
	OneDatabase             bool // the variable db selects one database, not several
	Rows                    []Row
}

// Row is a band of panels under a heading, laid out from left to right.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel shows the results of one or several queries.
type Panel struct {
	Title, Description string
	Kind               Kind
	Unit               string // Grafana's name of the unit
	Queries            []Query
	Width, Height      int       // in grid columns and rows; 0: by kind
	Steps              []Step    // thresholds, ascending; the colour below the first is Base
	Base               string    // "": green
	Values             []Mapping // words for numbers
	Min, Max           *float64  // of the axis
	Columns            []Column  // of a table, one per query
	OpensDatabase      bool      // a click leads to the dashboard of the series' database
}

// Kind is how a panel shows its results.
type Kind string

// The kinds of panels in use.
const (
	Stat       Kind = "stat"           // the latest value, large
	TimeSeries Kind = "timeseries"     // lines over time
	Table      Kind = "table"          // one row per database
	States     Kind = "state-timeline" // coloured bars over time
)

// Query is one PromQL expression.
type Query struct {
	Expr, Legend string
}

// Step colours values from At on.
type Step struct {
	At    float64
	Color string
}

// Mapping shows a word, in a colour, for a value.
type Mapping struct {
	Value int
	Text  string
	Color string
}

// Column is how a table shows the values of one query.
type Column struct {
	Title, Unit string
	Steps       []Step
	Values      []Mapping
}

// All returns every dashboard, the one to start with first.
func All() []Board {
	return []Board{fleet(), database(), replication(), policies()}
}

const (
	instanceMatchers = `job=~"$job",instance=~"$instance"`
	dbMatchers       = instanceMatchers + `,db=~"$db"`
)

// promQL replaces the placeholders in a query.
func promQL(expr string) string {
	return strings.NewReplacer("@db", dbMatchers, "@instance", instanceMatchers).Replace(strings.TrimSpace(expr))
}

// grown returns a query for the growth of a counter, of series that grew. A counter that is
// absent while it is 0 appears with its first count, which increase does not see as growth.
func grown(counter, span string) string {
	return `increase(` + counter + `[` + span + `]) > 0 or ` + counter + ` unless ` + counter + ` offset ` + span
}

// one returns the queries of a panel that has only one.
func one(expr, legend string) []Query { return []Query{{Expr: expr, Legend: legend}} }

func number(v float64) *float64 { return &v }

// bad colours everything from at on red, warn orange and then red.
func bad(at float64) []Step           { return []Step{{at, "red"}} }
func warn(orange, red float64) []Step { return []Step{{orange, "orange"}, {red, "red"}} }

// low colours values below red in red, values below orange in orange, and the rest in
// green, together with Base: "red".
func low(red, orange float64) []Step { return []Step{{red, "orange"}, {orange, "green"}} }

var yesNo = []Mapping{{0, "no", "green"}, {1, "YES", "red"}}
