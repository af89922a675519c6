package replicator

import (
	"context"
	"time"
)

// An application that is told to stop at the same moment as sqlwatch may still commit its
// last work. These bound how long capture stays for it.
const (
	outstayQuiet = 3 * time.Second        // without a commit for so long, there is nothing to wait for
	outstayLook  = 100 * time.Millisecond // the longest pause between two turns
)

// outstay keeps capturing and shipping while other processes use the database and commit,
// for at most two thirds of Options.FinalSync. It first ships what was committed before:
// the service manager may kill this process earlier than that.
func (r *Replicator) outstay(last context.Context) {
	if r.o.Outstay == nil || !r.o.Outstay() || !r.source.attended() {
		return
	}
	ctx, cancel := context.WithTimeout(last, r.o.FinalSync*2/3)
	defer cancel()
	_ = r.sync(ctx, (*replica).syncTo) // finish syncs again and logs a failure
	r.log.Info("waiting until the application has exited or is idle")
	var seen told
	for active := time.Now(); ctx.Err() == nil && r.source.attended() && time.Since(active) < outstayQuiet; {
		next, err := r.turn(ctx)
		if err != nil || next > outstayLook {
			next = outstayLook
		}
		if r.told.pending || r.told.txid != seen.txid {
			seen, active = r.told, time.Now()
		}
		select {
		case <-ctx.Done():
		case <-time.After(next):
		}
	}
}
