package target

import (
	"context"
	"encoding/json"

	"github.com/sqlwatch/sqlwatch/collector"
	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
	"github.com/sqlwatch/sqlwatch/policy"
)

// Look samples a database once and asks the policies, without a past and without doing
// anything. It returns what a daemon would publish.
func Look(ctx context.Context, t config.DatabaseTarget, policies *policy.Set) (admin.Database, error) {
	reader := collector.NewSampler(t.Name, t.Path, collector.SamplerOptions{})
	defer reader.Close()
	sample := reader.Sample(ctx)
	decision := policies.Evaluate(policy.Input{Now: sample.At, Sample: &sample, Labels: t.Labels}, nil)
	// Through JSON, so that the commands see the same whoever looked.
	conditions := health.OfDatabase(health.Database{Name: t.Name, Path: sample.Path, Now: sample.At,
		Replicated: len(t.Replicas) > 0, Sample: &sample})
	text, err := json.Marshal(watchdog.DatabaseStatus{
		Name: t.Name, Path: sample.Path, Labels: t.Labels, Sample: &sample, Decision: &decision, Conditions: conditions,
		Actions: []watchdog.ActionRecord{}, Changes: []watchdog.ChangeRecord{},
	})
	if err != nil {
		return admin.Database{}, err
	}
	var view admin.Database
	return view, json.Unmarshal(text, &view)
}
