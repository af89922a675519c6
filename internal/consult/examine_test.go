package consult

import (
	"fmt"
	"io"
	"path/filepath"
	"testing"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

// However many databases are examined concurrently, the results are in order.
func TestExamineAll(t *testing.T) {
	t.Parallel()
	var targets []config.DatabaseTarget
	for i := range 3 * atOnce {
		name := fmt.Sprint("db", i)
		targets = append(targets, config.DatabaseTarget{Name: name, Path: filepath.Join(t.TempDir(), name)})
	}
	for i, d := range (Consultation{Progress: io.Discard}).examineAll(t.Context(), Request{}, targets, nil) {
		if d.Name != targets[i].Name || len(d.Findings) != 1 || d.Findings[0].ID != "missing" {
			t.Errorf("%d: %s, %v", i, d.Name, d.Findings)
		}
	}
}
