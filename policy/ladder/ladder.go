// Package ladder is a checkpoint as policies describe it: steps from gentle to
// thorough, under one stall budget, with a pause that grows where they bear no fruit.
package ladder

import (
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/catalogue"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

// DefaultBackoff is the pause after a fruitless run where a policy says nothing.
var DefaultBackoff = Backoff{Initial: 30 * time.Second, Max: 30 * time.Minute}

// Ladder is a checkpoint: steps from gentle to thorough under one stall budget.
type Ladder struct {
	StallBudget time.Duration `json:"stall_budget"` // how long writers may wait for one run
	Steps       []Step        `json:"steps"`
	OnBusy      Backoff       `json:"on_busy"`
}

// Truncates reports whether a step of the ladder takes the write lock.
func (l *Ladder) Truncates() bool {
	for _, s := range l.Steps {
		if s.Mode == checkpoint.Truncate {
			return true
		}
	}
	return false
}

// Gentle returns the ladder without its TRUNCATE. Every ladder begins with what is
// harmless, so that what is left to truncate gets no larger.
func (l *Ladder) Gentle() *Ladder {
	g := *l
	g.Steps = nil
	for _, s := range l.Steps {
		if s.Mode == checkpoint.Passive {
			g.Steps = append(g.Steps, s)
		}
	}
	if len(g.Steps) == 0 {
		g.Steps = []Step{{Mode: checkpoint.Passive, Repeat: 3}}
	}
	return &g
}

// Step is one stage of a ladder.
type Step struct {
	Mode        checkpoint.Mode `json:"mode"`
	Repeat      int             `json:"repeat"` // at least 1; a step that ends complete is not repeated
	BusyTimeout time.Duration   `json:"busy_timeout"`
}

// Backoff doubles the pause after each fruitless run, from Initial to Max.
type Backoff struct {
	Initial time.Duration `json:"backoff"`
	Max     time.Duration `json:"max"`
}

// After returns the pause after the n-th fruitless run in a row (n from 1).
func (b Backoff) After(n int) time.Duration {
	d := b.Initial
	for ; n > 1 && d < b.Max; n-- {
		d *= 2
	}
	return min(d, b.Max)
}

// Read reads a checkpoint block. Without steps it is the gentle default: passive to
// drain the bulk, then truncate for the tail.
func Read(d *hcldecode.Decoder, b *hcl.Block) *Ladder {
	schema := catalogue.Schema("checkpoint")
	schema.Blocks = []hcl.BlockHeaderSchema{{Type: "step", LabelNames: []string{"mode"}}, {Type: "on_busy"}}
	content := d.Content(b.Body, schema)
	l := &Ladder{OnBusy: DefaultBackoff}
	l.StallBudget = d.Duration(content.Attributes["stall_budget"], checkpoint.DefaultStall, time.Millisecond, time.Minute)
	for _, s := range content.Blocks.OfType("step") {
		l.Steps = append(l.Steps, l.step(d, s))
	}
	if len(l.Steps) == 0 {
		l.Steps = []Step{{Mode: checkpoint.Passive, Repeat: 3},
			{Mode: checkpoint.Truncate, Repeat: 1, BusyTimeout: 50 * time.Millisecond}}
	}
	if ob := d.Single(content.Blocks, "on_busy"); ob != nil {
		a := d.Content(ob.Body, catalogue.Schema("on_busy")).Attributes
		l.OnBusy.Initial = d.Duration(a["backoff"], DefaultBackoff.Initial, time.Second, 24*time.Hour)
		l.OnBusy.Max = d.Duration(a["max"], max(DefaultBackoff.Max, l.OnBusy.Initial), time.Second, 7*24*time.Hour)
		if l.OnBusy.Max < l.OnBusy.Initial {
			d.Errorf(ob.DefRange, "Out of range", "max is less than backoff.")
		}
	}
	return l
}

// step reads one step block.
func (l *Ladder) step(d *hcldecode.Decoder, b *hcl.Block) Step {
	a := d.Content(b.Body, catalogue.Schema("step")).Attributes
	step := Step{Repeat: d.Int(a["repeat"], 1, 1, 100), BusyTimeout: d.Duration(a["busy_timeout"], 0, 0, 10*time.Second)}
	switch b.Labels[0] {
	case "passive":
		if a["busy_timeout"] != nil {
			d.Warnf(a["busy_timeout"].Range, "No effect", "A passive checkpoint waits for nobody.")
		}
	case "truncate":
		step.Mode = checkpoint.Truncate
		if step.BusyTimeout > l.StallBudget {
			d.Warnf(a["busy_timeout"].Range, "Beyond the budget",
				"The stall budget of %s ends the wait before busy_timeout does.", l.StallBudget)
		}
	default:
		d.Errorf(b.LabelRanges[0], "Unknown step",
			"A step is \"passive\" or \"truncate\"; full and restart are not offered, they hold writers up like truncate and "+
				"give less.%s", lang.Suggest(b.Labels[0], []string{"passive", "truncate"}))
	}
	if n := len(l.Steps); b.Labels[0] == "passive" && n > 0 && l.Steps[n-1].Mode == checkpoint.Truncate {
		d.Warnf(b.DefRange, "Steps out of order", "After a truncate nothing is left for passive: steps go from gentle to "+
			"thorough.")
	}
	return step
}
