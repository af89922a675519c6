package examples_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/policy"
)

// The quickstart's policies are the built-in ones, word for word.
func TestQuickstartIsTheDefault(t *testing.T) {
	t.Parallel()
	quickstart, err := os.ReadFile("quickstart.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if _, rules, _ := strings.Cut(policy.DefaultSource(), "\n\n"); !strings.HasSuffix(string(quickstart), rules) {
		t.Error("quickstart.hcl does not end with what policy/default.hcl holds")
	}
}

// The configurations of the container examples load without a diagnostic.
func TestContainerConfigurations(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"compose/sqlwatch.hcl", "kubernetes/sqlwatch.hcl"} {
		good(t, path)
	}
}

// good fails the test if a configuration has any diagnostic, even a warning.
func good(t *testing.T, path string) {
	t.Helper()
	cfg, diags := config.Load(path, func(string) (string, bool) { return "", false })
	if len(diags) > 0 {
		t.Fatalf("%s: %v", path, diags)
	}
	if _, err := cfg.Expand(); err != nil {
		t.Errorf("%s: %v", path, err)
	}
}

// manifest has the fields of a Kubernetes object that the tests check.
type manifest struct {
	Kind string
	Data map[string]string
	Spec struct {
		Template struct {
			Spec struct {
				InitContainers []container `yaml:"initContainers"`
				Containers     []container
				Volumes        []named
			}
		}
		VolumeClaimTemplates []struct{ Metadata named } `yaml:"volumeClaimTemplates"`
	}
}

type named struct{ Name string }

type container struct {
	Name, Image  string
	Args         []string
	VolumeMounts []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
	} `yaml:"volumeMounts"`
}

// In the manifests every mount has its volume, every flag is one of the commands run and
// restore, and every configuration loads.
func TestKubernetesManifests(t *testing.T) {
	t.Parallel()
	flags := ""
	for _, source := range []string{"restore.go", "run.go"} {
		text, err := os.ReadFile("../cmd/sqlwatch/" + source)
		if err != nil {
			t.Fatal(err)
		}
		flags += string(text)
	}
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("manifests: %v %v", files, err)
	}
	mounts := 0
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for dec := yaml.NewDecoder(f); ; {
			var m manifest
			if err := dec.Decode(&m); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			mounts += m.check(t, path, flags)
		}
	}
	if mounts < 8 {
		t.Errorf("only %d mounts were seen", mounts)
	}
}

// check checks one object and returns how many mounts it has.
func (m manifest) check(t *testing.T, path, flags string) (mounts int) {
	t.Helper()
	for name, text := range m.Data {
		out := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(out, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		good(t, out)
	}
	pod := m.Spec.Template.Spec
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		for _, mount := range c.VolumeMounts {
			mounts++
			claimed := false
			for _, claim := range m.Spec.VolumeClaimTemplates {
				claimed = claimed || claim.Metadata.Name == mount.Name
			}
			if !claimed && !slices.Contains(pod.Volumes, named{mount.Name}) {
				t.Errorf("%s: %s mounts %s, which is no volume", path, c.Name, mount.Name)
			}
		}
		for _, arg := range c.Args {
			if flag, ok := strings.CutPrefix(arg, "--"); ok && !strings.Contains(flags, `Flag("`+flag+`"`) {
				t.Errorf("%s: %s is no flag", path, arg)
			}
		}
	}
	return mounts
}

// The application is stopped before sqlwatch, so that its last commit is replicated. No container shares the
// PID namespace of another: when the first process of a namespace ends, the kernel kills all the others in it.
func TestContainersOutliveTheApplication(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("compose/compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			PID       string
			DependsOn map[string]any `yaml:"depends_on"`
		}
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	if _, last := compose.Services["app"].DependsOn["sqlwatch"]; !last {
		t.Error("compose may stop sqlwatch before the application")
	}
	for name, s := range compose.Services {
		if s.PID != "" && s.PID != "host" {
			t.Errorf("%s lives in the PID namespace of %s", name, s.PID)
		}
	}
	recipes, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(recipes)) {
		if strings.HasPrefix(line, "docker run") && strings.Contains(line, "--pid=container:") {
			t.Errorf("%s", line)
		}
	}
}

// The recipe for PocketBase names the directories and the socket that its unit creates.
func TestRecipeOfAUserFitsItsUnit(t *testing.T) {
	t.Parallel()
	recipes, err := os.ReadFile("../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	unit, err := os.ReadFile("../packaging/sqlwatch@.service")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(recipes), "\n## PocketBase")
	section, _, _ = strings.Cut(section, "\n## ")
	for setting, want := range map[string]string{
		"StateDirectory=": `state_dir = "/var/lib/%s"`, "RuntimeDirectory=": `admin     = "unix:///run/%s/admin.sock"`,
		"ExecStart=/usr/bin/sqlwatch run --config ": `0600 sqlwatch.hcl %s/sqlwatch.hcl`,
	} {
		_, value, _ := strings.Cut("\n"+string(unit), "\n"+setting)
		value, _, _ = strings.Cut(value, "\n")
		want = fmt.Sprintf(want, strings.ReplaceAll(value, "%i", "pocketbase"))
		if value == "" || !strings.Contains(section, want) {
			t.Errorf("the unit has %s%s, the recipe lacks %s", setting, value, want)
		}
	}
	if !strings.Contains(section, "--admin /run/sqlwatch-pocketbase/admin.sock status") {
		t.Error("the recipe's status command asks another socket")
	}
}
