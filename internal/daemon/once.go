package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// CheckpointOnce runs the loop's own checkpoint in this process, for a database that no daemon
// watches and that has no replica.
func CheckpointOnce(ctx context.Context, t config.DatabaseTarget, mode string) (watchdog.ActionRecord, error) {
	idle, _ := policy.Parse(nil, &policy.Scope{})
	w := watchdog.New(watchdog.Options{
		Targets: []watchdog.Target{{Name: t.Name, Path: t.Path, Open: func(context.Context) (watchdog.Parts, error) {
			return PlainParts(t), nil
		}}},
		Policies: idle,
	})
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, ShutdownGrace) }()
	record, err := awaitCheckpoint(ctx, w, t.Name, mode)
	cancel()
	return record, errors.Join(err, <-ended)
}

func awaitCheckpoint(ctx context.Context, w *watchdog.Watchdog, name, mode string) (watchdog.ActionRecord, error) {
	for !w.Ready() {
		select {
		case <-ctx.Done():
			return watchdog.ActionRecord{}, ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return w.Checkpoint(ctx, name, mode)
}
