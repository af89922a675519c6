package watchdog

import (
	"log/slog"
	"time"

	"github.com/sqlwatch/sqlwatch/policy"
)

// Entry is one line of the decision log: a policy's decision changed, or an action ended.
type Entry struct {
	At     time.Time         `json:"at"`
	DB     string            `json:"db"`
	Change *ChangeRecord     `json:"change,omitempty"`
	Inputs map[string]string `json:"inputs,omitempty"` // what the policy read, formatted for people
	Action *ActionRecord     `json:"action,omitempty"`
}

// Recent is what the decision log says of a database from earlier runs of the daemon, newest first.
type Recent struct {
	Actions []ActionRecord
	Changes []ChangeRecord
}

// logChanges logs each changed decision with the values that the policy had read.
func (d *database) logChanges(fresh []ChangeRecord) {
	if len(fresh) == 0 || d.options.Decided == nil {
		return
	}
	in := d.input(d.past.last)
	in.SkipTree = false
	inputs := map[string]map[string]string{}
	for _, p := range d.policies.Load().Evaluate(in, d.ledger.states).Policies {
		inputs[p.Policy] = p.Tree.Leaves()
	}
	for i := range fresh {
		d.options.Decided(Entry{At: fresh[i].At, DB: d.target.Name, Change: &fresh[i], Inputs: inputs[fresh[i].Policy]})
	}
}

// hindered logs that a policy cannot do everything it is for, and later that it can again:
// one line, repeated every ten minutes as long as that lasts.
func (d *database) hindered(p policy.PolicyDecision) {
	topic := p.Policy + " hindered"
	if p.Hindered != "" {
		d.voice.Say(topic, slog.LevelWarn, true, "this policy cannot do everything it should", "policy", p.Policy, "err",
			p.Hindered, "next", "see `sqlwatch why "+d.target.Name+" "+p.Policy+"`")
	} else if d.voice.Failing(topic) {
		d.voice.Say(topic, slog.LevelInfo, false, "this policy is no longer hindered", "policy", p.Policy)
	}
}
