package alerts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const composeDir = "../examples/compose"

// The example configurations are accepted by the programs they are for.
func TestExamplesAreAccepted(t *testing.T) {
	dir := t.TempDir()
	for name, from := range map[string]string{"prometheus.yml": "../examples/prometheus.yml", rulesFile: rulesFile} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"promtool", "check", "config", filepath.Join(dir, "prometheus.yml")},
		{"amtool", "check-config", composeDir + "/alertmanager.yml"},
	} {
		t.Run(args[0], func(t *testing.T) {
			program := tool(t, args[0])
			if out, err := exec.Command(program, args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		})
	}
}

// Every file that the compose file mounts into a container exists.
func TestComposeMountsWhatIsThere(t *testing.T) {
	var compose struct {
		Services map[string]struct{ Volumes []string }
		Volumes  map[string]any
	}
	decode(t, composeDir+"/compose.yml", &compose)
	mounts := 0
	for service, s := range compose.Services {
		for _, volume := range s.Volumes {
			source, _, _ := strings.Cut(volume, ":")
			if _, named := compose.Volumes[source]; named {
				continue
			}
			mounts++
			if _, err := os.Stat(filepath.Join(composeDir, source)); err != nil {
				t.Errorf("%s: %v", service, err)
			}
		}
	}
	if mounts < 5 {
		t.Errorf("only %d mounts", mounts)
	}
	for _, path := range []string{"grafana/datasources/prometheus.yml", "grafana/dashboards/sqlwatch.yml"} {
		var provisioning struct{ APIVersion int }
		decode(t, filepath.Join(composeDir, path), &provisioning)
	}
}

// The table in docs/operations.md lists every alert with its severities.
func TestOperationsListsEveryAlert(t *testing.T) {
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^\| (Sqlwatch\w+) \| ([a-z ]+) \|`).FindAllStringSubmatch(string(text), -1) {
		listed[m[1]] = m[2]
	}
	severities := map[string]map[string]bool{}
	for _, r := range rules(t) {
		if r.Alert == "" {
			continue
		}
		if severities[r.Alert] == nil {
			severities[r.Alert] = map[string]bool{}
		}
		severities[r.Alert][r.Labels["severity"]] = true
	}
	for name, severity := range severities {
		want := "warning"
		switch {
		case severity["critical"] && severity["warning"]:
			want = "critical or warning"
		case severity["critical"]:
			want = "critical"
		}
		if listed[name] != want {
			t.Errorf("docs/operations.md says of %s %q, want %q", name, listed[name], want)
		}
	}
	for name := range listed {
		if severities[name] == nil {
			t.Errorf("docs/operations.md lists %s, which is no alert", name)
		}
	}
}
