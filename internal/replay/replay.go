package replay

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/decisions"
	"github.com/sqlwatch/sqlwatch/internal/lookup"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/sqlite"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Outcome is what a configuration would have made of a recording.
type Outcome struct {
	Actions      map[string]int `json:"actions"`  // by policy
	Failures     map[string]int `json:"failures"` // actions that would not have reached their end, by policy
	PeakWAL      int64          `json:"peak_wal_bytes"`
	LastWAL      int64          `json:"last_wal_bytes"`
	Stall        float64        `json:"stall_seconds"`         // how long writers waited, in all
	LongestStall float64        `json:"longest_stall_seconds"` // by one checkpoint
	// checkpoints with a stall while writers were busier than mostly
	StallsAtPeak int `json:"stalls_at_peak"`
}

// Database is one database under each configuration.
type Database struct {
	DB       string    `json:"db"`
	From     time.Time `json:"from"`
	To       time.Time `json:"to"`
	Unseen   float64   `json:"unseen_seconds"`          // in between, for which nobody looked
	Recorded int64     `json:"recorded_peak_wal_bytes"` // as it really was
	Before   *Outcome  `json:"before,omitempty"`        // nil: that configuration does not watch it
	After    *Outcome  `json:"after,omitempty"`
}

// Run plays what the state directory holds of the databases, or of all for none, under
// one configuration and, unless it is nil, another.
func Run(stateDir string, since time.Time, names []string, before, after *config.Config) ([]Database, error) {
	inputs, err := Read(stateDir, since)
	if err != nil {
		return nil, err
	}
	costs, err := measuredCosts(stateDir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if len(inputs) > 0 && len(inputs[name]) == 0 {
			return nil, fmt.Errorf("nothing is recorded of %q since %s; there are %s", name, since.Format(time.DateTime),
				strings.Join(slices.Sorted(maps.Keys(inputs)), ", "))
		}
	}
	all := []Database{}
	for _, db := range slices.Sorted(maps.Keys(inputs)) {
		in := inputs[db]
		if len(in) < 2 || len(names) > 0 && !slices.Contains(names, db) {
			continue
		}
		one := Database{DB: db, From: time.Unix(in[0].At, 0).UTC(), To: time.Unix(in[len(in)-1].At, 0).UTC()}
		for i, x := range in {
			one.Recorded = max(one.Recorded, x.WAL)
			if i > 0 && gap(in[i-1], x) {
				one.Unseen += float64(x.At - in[i-1].At)
			}
		}
		one.Before = under(before, db, in, costs[db])
		one.After = under(after, db, in, costs[db])
		all = append(all, one)
	}
	return all, nil
}

// measuredCosts returns what truncations of each database have cost its writers, in
// nanoseconds a byte: the median of those that the decision log has.
func measuredCosts(stateDir string) (map[string]float64, error) {
	found := map[string][]float64{}
	err := decisions.Read(decisions.Path(stateDir), func(e watchdog.Entry) {
		if a := e.Action; a != nil && a.Outcome == sqlite.OutcomeTruncated.String() && a.Reclaimed > 1<<20 &&
			a.WriterStall > 0 {
			found[e.DB] = append(found[e.DB], float64(a.WriterStall)/float64(a.Reclaimed))
		}
	})
	costs := map[string]float64{}
	for db, all := range found {
		slices.Sort(all)
		costs[db] = all[len(all)/2]
	}
	return costs, err
}

// gap reports whether nobody looked between two inputs.
func gap(a, b Input) bool { return b.At-a.At > int64((atLeast+openEnded)/time.Second) }

// under plays a database's inputs under a configuration, nil where that does not watch it.
func under(cfg *config.Config, db string, inputs []Input, cost float64) *Outcome {
	if cfg == nil {
		return nil
	}
	targets, _ := cfg.ExpandAround(nil, lookup.New()) // what is left out is not watched
	i := slices.IndexFunc(targets, func(t config.DatabaseTarget) bool { return t.Name == db })
	if i < 0 {
		return nil
	}
	var replicas []string
	for _, r := range targets[i].Replicas {
		replicas = append(replicas, r.Name)
	}
	p := &player{set: cfg.Policies, labels: targets[i].Labels, replicas: replicas, past: cfg.Policies.NewHistory(),
		states: map[string]policy.PolicyState{}, out: Outcome{Actions: map[string]int{}, Failures: map[string]int{}}}
	p.db.perByte = freeCost
	if cost > 0 {
		p.db.perByte = cost
	}
	p.busy = busyAbove(inputs)
	return p.play(inputs)
}

// busyAbove returns how many frames an input has that three of four do not have.
func busyAbove(inputs []Input) uint64 {
	all := make([]uint64, len(inputs))
	for i, in := range inputs {
		all[i] = in.Frames
	}
	slices.Sort(all)
	return all[len(all)*3/4]
}

// player lives through a recording.
type player struct {
	set      *policy.Set
	labels   map[string]string
	replicas []string
	past     *policy.History
	states   map[string]policy.PolicyState
	db       model
	busy     uint64
	out      Outcome
}

func (p *player) play(inputs []Input) *Outcome {
	p.db.begin(inputs[0])
	for i, in := range inputs[1:] {
		before := inputs[i]
		if gap(before, in) {
			p.tick(time.Unix(in.At, 0), in)
			continue
		}
		// Between two inputs nothing has happened: time passes all the same.
		still := before
		still.Frames, still.Commits, still.Others = 0, 0, false
		for at := before.At + int64(every/time.Second); at < in.At; at += int64(every / time.Second) {
			p.tick(time.Unix(at, 0), still)
		}
		p.tick(time.Unix(in.At, 0), in)
	}
	p.out.LastWAL = p.db.wal.SizeBytes
	return &p.out
}

// tick is one evaluation. Actions are over at once.
func (p *player) tick(now time.Time, in Input) {
	p.db.take(in, now)
	p.out.PeakWAL = max(p.out.PeakWAL, p.db.wal.SizeBytes)
	sample := p.db.sample(now)
	p.past.Add(sample)
	d := p.set.Evaluate(policy.Input{Now: now, Sample: sample, History: p.past, Labels: p.labels, Replicas: p.replicas,
		SkipTree: true, SkipWords: true, Gap: openEnded}, p.states)
	p.states = d.Next
	for _, a := range d.Actions {
		p.act(a, now)
	}
}

func (p *player) act(a *policy.Action, now time.Time) {
	i := slices.IndexFunc(p.set.Policies, func(x *policy.Policy) bool { return x.Name == a.Policy })
	var r policy.ActionResult
	if a.Kind == policy.ActCheckpoint {
		r = p.db.runLadder(a.Checkpoint, now)
		p.past.ObserveStall(r.WriterStall)
	}
	p.states = maps.Clone(p.states)
	p.states[a.Policy] = p.set.Finished(p.states[a.Policy], p.set.Policies[i], now, r)
	p.out.Actions[a.Policy]++
	if failed(r.Outcome) {
		p.out.Failures[a.Policy]++
	}
	if r.WriterStall > 0 && p.db.in.Frames > p.busy {
		p.out.StallsAtPeak++
	}
	p.out.Stall += r.WriterStall.Seconds()
	p.out.LongestStall = max(p.out.LongestStall, r.WriterStall.Seconds())
}

func failed(o sqlite.Outcome) bool {
	return o == sqlite.OutcomePinned || o == sqlite.OutcomeNotReset || o == sqlite.OutcomeWriterBusy
}

// Write prints the databases, each configuration on a line.
func Write(w io.Writer, all []Database) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "Nothing is recorded yet: a running daemon records what its policies are shown.")
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "DATABASE\tUNDER\tACTIONS\tPEAK WAL\tSTALL\tLONGEST\tAT PEAK")
	for _, d := range all {
		fmt.Fprintf(table, "%s\tas it was, %s\t\t%s\t\t\t\n", show.Text(d.DB), show.Span(d.To.Sub(d.From)),
			show.Bytes(d.Recorded))
		for _, row := range []struct {
			name string
			o    *Outcome
		}{{"this configuration", d.Before}, {"the new one", d.After}} {
			if row.o != nil {
				fmt.Fprintf(table, "\t%s\t%s\t%s\t%s\t%s\t%d\n", row.name, counts(row.o), show.Bytes(row.o.PeakWAL),
					short(row.o.Stall), short(row.o.LongestStall), row.o.StallsAtPeak)
			}
		}
	}
	return table.Flush()
}

// counts says how often each policy acts.
func counts(o *Outcome) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(o.Actions)) {
		part := fmt.Sprintf("%s %d×", name, o.Actions[name])
		if n := o.Failures[name]; n > 0 {
			part += fmt.Sprintf(" (%d in vain)", n)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

func short(seconds float64) string {
	return time.Duration(seconds * float64(time.Second)).Round(100 * time.Microsecond).String()
}
