package replicator

import (
	"context"
	"time"
)

// An application that is told to end at the same moment as we are may still commit
// what it has to finish. Who has left by then does not see it.
const (
	outstayQuiet = 3 * time.Second        // without a commit: there is nothing to be waited for
	outstayLook  = 100 * time.Millisecond // at least so often
)

// outstay keeps capturing and shipping while others use the database and commit,
// for two thirds of the time that the last sync has. What was committed before is
// shipped first: whoever ends us may have less patience.
func (r *Replicator) outstay(last context.Context) {
	if r.o.Outstay == nil || !r.o.Outstay() || !r.source.attended() {
		return
	}
	ctx, cancel := context.WithTimeout(last, r.o.FinalSync*2/3)
	defer cancel()
	_ = r.sync(ctx, (*replica).syncTo) // it is done again at the end, and told then
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
