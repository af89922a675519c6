package daemon

import (
	"os"
	"strings"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/inventory"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/replicator/custody"
)

// beginning logs in one line what is replicated where, and how much will be sent first to empty
// replicas. It also records the places, for a time when the configuration no longer names them.
func (d *Daemon) beginning(t config.DatabaseTarget, stateDir string) {
	var places []string
	for _, r := range t.Replicas {
		places = append(places, r.Place())
	}
	text := "replicating " + t.Name + " to " + strings.Join(places, " and ")
	if info, err := os.Stat(t.Path); err == nil && custody.LineageOf(stateDir) == "" {
		text += ": first snapshot of " + show.Bytes(info.Size())
	}
	d.log.Info(text)
	if err := inventory.Remember(stateDir, t); err != nil {
		d.log.Warn("the addresses of the replicas could not be saved in the state directory", "db", t.Name, "err", err)
	}
}
