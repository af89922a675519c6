package config

import (
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/sqlwatch/sqlwatch/internal/notify/channel"
)

// unused warns about blocks that nothing refers to: a replica that no database uses looks like a
// backup, and is none.
func (l *loading) unused() {
	used := map[string][]string{"window": l.cfg.Policies.WindowsRead()}
	for _, d := range l.cfg.Databases {
		used["replica"] = append(used["replica"], d.ReplicateTo...)
	}
	for _, p := range l.cfg.Policies.Policies {
		used["notifier"] = append(used["notifier"], p.Notify...)
	}
	warn := func(kind, name string, at hcl.Range, cure string) {
		if !slices.Contains(used[kind], name) {
			l.Warnf(at, "Never used", "Nothing refers to %s.%s: %s.", kind, name, cure)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Replicas)) {
		warn("replica", name, l.cfg.Replicas[name].Range, "nothing is stored there. Write replicate_to = [replica."+name+
			"] into a database")
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Policies.Windows)) {
		warn("window", name, l.cfg.Policies.Windows[name].Range, "no policy keeps to it. Write window = window."+name+
			" into one")
	}
	for _, name := range slices.Sorted(maps.Keys(l.cfg.Notifiers)) {
		if n := l.cfg.Notifiers[name]; n.Type != channel.HeartbeatType { // no policy names a heartbeat
			warn("notifier", name, n.Range, "it is told nothing. Write notify = [notifier."+name+"] into a policy")
		}
	}
}
