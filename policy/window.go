package policy

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/proof"
	"github.com/sqlwatch/sqlwatch/policy/window"
)

// Windows: when policies may act.
type (
	Window = window.Window // follows a schedule, or learns
	Learn  = window.Learn  // how a window learns
)

// closedReason is the reason of a policy that waits for a window. It is cached, because a thousand
// databases need the same text at each tick.
type closedReason struct {
	opensIn float64
	text    string
}

// spansOf returns when a policy's window will be open, if that is known: not for one that learns.
func (s *Set) spansOf(x hclsyntax.Expression) (w proof.Window) {
	if x == nil || !s.scheduled(x) {
		return w
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, t := range x.Variables() {
		named := s.Windows[t[1].(hcl.TraverseAttr).Name]
		for _, sp := range named.Openings(from, 400) {
			w.Openings = append(w.Openings, sp[0])
		}
	}
	slices.SortFunc(w.Openings, time.Time.Compare)
	w.Open = func(at time.Time) Truth {
		e := s.program.At(lang.Moment{Now: at, Sample: &collector.Sample{At: at}})
		e.SetWindows(s.windows.States(nil, e, at))
		st, _ := e.Window(x)
		return st.Open
	}
	return w
}
