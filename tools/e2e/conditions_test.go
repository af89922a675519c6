package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the table of docs/conditions.md that these tests prove")

const conditionsPage = "../../docs/conditions.md"

// scene makes one condition happen to a database, by the real program and real faults.
type scene struct {
	how    string // in the table
	late   bool   // after all others: what looks at every file does not return then
	cannot string // why it is not made to happen here; tests of internal/health then give the rule its input

	prepare func(f *fleet, db *member) // before the daemon starts
	trouble func(f *fleet, db *member) // once everything is well
}

// member is the database of one scene, named after its condition.
type member struct {
	name, path string
	lines      string // more of its block
	more       string // more blocks
	apart      bool   // the scene brings a daemon of its own
}

// fleet is a daemon with a database for each scene.
type fleet struct {
	*daemon
	t       *testing.T
	dir     string
	program string // of the daemon
	members []*member
	store   *faultyStore

	deadline time.Time // for everything to be seen
}

// view is one way of asking what is wrong with a database, "" being sqlwatch itself.
type view struct {
	name string
	ask  func(f *fleet, db, id string) error
}

var views = []view{
	{"page", func(f *fleet, db, id string) error {
		at := f.url + "/"
		if db != "" {
			at += "?db=" + url.QueryEscape(db)
		}
		return contains(at, "<b>"+id+"</b>")
	}},
	{"status", func(f *fleet, db, id string) error { return f.says(db, id, "status") }},
	{"why", func(f *fleet, db, id string) error { return f.says(db, id, "why") }},
	{"top", func(f *fleet, db, id string) error { return f.says(db, id, "top", "--once") }},
	{"doctor", func(f *fleet, db, id string) error {
		return f.says(db, id, "doctor", "--no-replicas", "--settings=none")
	}},
	{"/-/ready", func(f *fleet, db, id string) error {
		name := db
		if db == "" {
			name = "sqlwatch"
		}
		text, err := get(f.url + "/-/ready")
		if err == nil && !regexp.MustCompile("(?m)^"+name+": [a-z]+ "+id+": ").MatchString(text) {
			err = fmt.Errorf("not in %s", text)
		}
		return err
	}},
	{"API", func(f *fleet, db, id string) error {
		_, err := f.severity(db, id)
		return err
	}},
	{"metric", func(f *fleet, db, id string) error {
		text, err := get(f.url + "/metrics?name[]=sqlwatch_condition")
		series := fmt.Sprintf(`(?m)^sqlwatch_condition\{condition="%s",db="%s",severity="[a-z]+"\} 1$`, id, db)
		if err == nil && !regexp.MustCompile(series).MatchString(text) {
			err = fmt.Errorf("%s is not in %s", series, text)
		}
		return err
	}},
	{"alert", nil}, // asked of a Prometheus, for all at once
	{"runbook", func(_ *fleet, _, id string) error {
		text, err := os.ReadFile(conditionsPage)
		if err == nil && !strings.Contains(string(text), "\n## "+id+"\n") {
			err = errors.New("docs/conditions.md has no section of it")
		}
		return err
	}},
}

// contains fetches a page and looks for text in it.
func contains(at, want string) error {
	text, err := get(at)
	if err == nil && !strings.Contains(text, want) {
		err = fmt.Errorf("%s lacks %q", at, want)
	}
	return err
}

// says runs a command about a database and looks for the condition in what it prints. Where
// somebody must act, the exit code is 2.
func (f *fleet) says(db, id string, args ...string) error {
	if db != "" {
		args = append(args, db)
	}
	severity, err := f.severity(db, id)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience/4)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, append([]string{"--config", f.config}, args...)...)
	out, err := cmd.CombinedOutput()
	code := cmd.ProcessState.ExitCode()
	switch {
	case code != 0 && code != 2:
		return fmt.Errorf("%v: %w: %s", args, err, out)
	case !regexp.MustCompile(`\b` + id + `\b`).Match(out):
		return fmt.Errorf("%v does not say %s: %s", args, id, out)
	case severity != "info" && code != 2 && args[0] != "top":
		return fmt.Errorf("%v says %s and exits with %d", args, id, code)
	}
	return nil
}

// severity asks the API whether a condition holds.
func (f *fleet) severity(db, id string) (string, error) {
	text, err := get(f.url + "/api/v1/health")
	if err != nil {
		return "", err
	}
	type condition struct{ ID, Severity, What, Why, Cure string }
	var health struct {
		Conditions []condition
		Databases  []struct {
			Name       string
			Conditions []condition
		}
	}
	if err := json.Unmarshal([]byte(text), &health); err != nil {
		return "", err
	}
	of := health.Conditions
	if db != "" {
		of = nil
		for _, d := range health.Databases {
			if d.Name == db {
				of = d.Conditions
			}
		}
	}
	for _, c := range of {
		if c.ID == id && c.What != "" && c.Why != "" && c.Cure != "" {
			return c.Severity, nil
		}
	}
	return "", fmt.Errorf("%q has %+v, not %s", db, of, id)
}

// envConditions makes TestEveryConditionInEveryView run: it takes some minutes of a machine
// that has nothing else to do.
const envConditions = "SQLWATCH_TEST_CONDITIONS"

// Every condition really happens, and every view says so.
func TestEveryConditionInEveryView_V3(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv(envConditions) == "" {
		t.Skip("needs root to mount disks and to give files away, and " + envConditions)
	}
	t.Parallel()
	f := newFleet(t)
	for _, id := range sortedScenes() {
		if s := scenes[id]; s.prepare != nil {
			m := f.add(id)
			s.prepare(f, m)
		}
	}
	well := f.add("well")
	well.apart = true
	toFile(f, well)
	f.start()
	f.write(well)
	rules, err := os.ReadFile("../../alerts/sqlwatch.rules.yml")
	must(t, err)
	prometheus := startPrometheus(t, f.url, fmt.Sprintf("rule_files: [%q]",
		write(t, f.dir, "rules.yml", faster(string(rules)))))
	f.mistake()
	var late []*member
	for _, m := range f.members {
		s := scenes[m.name]
		switch {
		case s.late:
			late = append(late, m)
		case s.trouble != nil:
			t.Log("trouble for", m.name)
			s.trouble(f, m)
		}
	}
	f.deadline = time.Now().Add(2 * patience)
	for _, m := range f.members {
		if !m.apart && !scenes[m.name].late {
			f.everywhere(m.name, m.name, prometheus)
		}
	}
	for _, id := range []string{"left_out", "reload_failed", "notification_failed"} {
		f.everywhere("", id, prometheus)
	}
	if text, err := f.severity("well", ""); err == nil || strings.Contains(err.Error(), "replica") {
		t.Errorf("nothing is wrong with it: %q, %v", text, err)
	}
	f.runbooks(false)
	f.quietLog()
	for _, m := range late {
		scenes[m.name].trouble(f, m)
	}
	f.deadline = time.Now().Add(patience)
	for _, m := range late {
		f.everywhere(m.name, m.name, prometheus)
	}
	f.runbooks(true)
}

// quietLog looks at how often the daemon repeats itself: what goes on for an hour is a few
// lines, and not one for each attempt.
func (f *fleet) quietLog() {
	f.t.Helper()
	lines := map[string]int{}
	db := regexp.MustCompile(`\bdb=(\w+)`)
	for line := range strings.Lines(f.output(f.t)) {
		if m := db.FindStringSubmatch(line); m != nil && strings.Contains(line, "msg=") {
			lines[m[1]]++
		}
	}
	for _, id := range []string{"replica_auth_failed", "replica_unavailable", "replica_failing",
		"action_failed"} {
		f.t.Logf("%d lines of log about %s", lines[id], id)
		if lines[id] == 0 || lines[id] > 15 {
			f.t.Errorf("%d lines of log about %s, from 1 to 15 were expected", lines[id], id)
		}
	}
}

// mistake writes two into the configuration, one after the other: a database that is
// watched already, with which it is taken, and one with which it is refused.
func (f *fleet) mistake() {
	f.t.Helper()
	text, err := os.ReadFile(f.config)
	must(f.t, err)
	twin := fmt.Sprintf("database \"twin\" {\n  path = %q\n}\n", f.members[0].path)
	for _, more := range []string{twin, "policy \"wrong\" {\n  when = wal.byts > 1\n  checkpoint {}\n}\n"} {
		text = append(text, more...)
		must(f.t, os.WriteFile(f.config, text, 0o600))
		f.post("/v1/reload")
	}
}

// everywhere waits until a condition holds, and asks every view.
func (f *fleet) everywhere(db, id, prometheus string) {
	f.t.Helper()
	severity, begun := "", time.Now()
	if !f.within(id+" holds", func() (err error) {
		severity, err = f.severity(db, id)
		return err
	}) {
		return
	}
	f.t.Logf("%s: %s after %s", id, severity, time.Since(begun).Round(time.Second))
	for _, v := range views {
		ask := v.ask
		switch {
		case v.name == "why" && db == "":
			continue // explains one database
		case v.name == "alert":
			ask = func(_ *fleet, db, id string) error { return firing(prometheus, id, severity) }
		}
		f.within(id+" in "+v.name, func() error { return ask(f, db, id) })
	}
}

// within is eventually for what goes on beside other things: all of them have the same
// time, and one that fails does not keep the others from being looked at.
func (f *fleet) within(what string, check func() error) bool {
	f.t.Helper()
	for {
		err := check()
		if err == nil {
			return true
		}
		if time.Now().After(f.deadline) {
			f.t.Errorf("%s: %v", what, err)
			return false
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// firing asks a Prometheus whether the alert of conditions of this kind fires. What is
// good to know wakes nobody.
func firing(prometheus, id, severity string) error {
	alerts, err := query(prometheus, fmt.Sprintf(
		`ALERTS{alertname=~"SqlwatchCondition.*",condition=%q,alertstate="firing"}`, id), "severity")
	switch {
	case err != nil:
		return err
	case severity == "info" && len(alerts) > 0:
		return fmt.Errorf("%s is an info, and fires %v", id, alerts)
	case severity != "info" && len(alerts) == 0:
		return fmt.Errorf("no alert of %s fires", id)
	}
	return nil
}

func sortedScenes() []string { return slices.Sorted(maps.Keys(scenes)) }

// docs/conditions.md says of every condition how it is made to happen here, or why it is
// not, and there is no scene of anything else.
func TestEveryConditionHasAScene(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(conditionsPage)
	must(t, err)
	var kinds []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (?:critical|warning|info) \\|").
		FindAllStringSubmatch(string(page), -1) {
		kinds = append(kinds, m[1])
	}
	if len(kinds) < 40 {
		t.Fatalf("only %d conditions are documented: %v", len(kinds), kinds)
	}
	for _, id := range kinds {
		if s, there := scenes[id]; !there || s.how == "" && s.cannot == "" {
			t.Errorf("nothing makes %s happen", id)
		}
	}
	for id := range scenes {
		if !slices.Contains(kinds, id) {
			t.Errorf("there is a scene of %s, which is no condition", id)
		}
	}
	const begin, end = "<!-- begin: scenes -->\n", "<!-- end: scenes -->"
	before, rest, found := strings.Cut(string(page), begin)
	_, after, whole := strings.Cut(rest, end)
	if !found || !whole {
		t.Fatalf("%s has no place for the table", conditionsPage)
	}
	want := before + begin + sceneTable(kinds) + end + after
	switch {
	case want == string(page):
	case *update:
		must(t, os.WriteFile(conditionsPage, []byte(want), 0o644))
	default:
		t.Errorf("%s is out of step: go test -run Scenes -update in tools/e2e rewrites it", conditionsPage)
	}
}

// sceneTable is the table of docs/conditions.md: conditions by views.
func sceneTable(kinds []string) string {
	var b strings.Builder
	b.WriteString("| condition | made to happen by | seen in |\n|---|---|---|\n")
	var names []string
	for _, v := range views {
		names = append(names, v.name)
	}
	for _, id := range kinds {
		s := scenes[id]
		seen := strings.Join(slices.DeleteFunc(slices.Clone(names), func(n string) bool {
			return n == "why" && slices.Contains(ofItself, id) || n == "alert" && id == "no_databases"
		}), ", ")
		switch {
		case s.cannot != "":
			fmt.Fprintf(&b, "| `%s` | its measurement alone: %s | by tests of internal/web and internal/watchdog |\n", id,
				s.cannot)
		case id == "daemon_down":
			fmt.Fprintf(&b, "| `%s` | %s | status, why, top |\n", id, s.how)
		default:
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", id, s.how, seen)
		}
	}
	return b.String()
}

// ofItself are the conditions of the daemon, which no database has.
var ofItself = []string{"daemon_down", "reload_failed", "left_out", "no_databases", "handler_panicked",
	"notification_failed"}

// A daemon that finds no database says so; one that is down is told of by the commands,
// which look for themselves.
func TestDaemonConditions_V3(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, dir: t.TempDir()}
	f.daemon = startDaemon(t, fmt.Sprintf("database \"none\" {\n  glob = %q\n}\n", filepath.Join(f.dir, "*.db")))
	for _, v := range views {
		if v.ask != nil && v.name != "why" {
			eventually(t, patience, "no_databases in "+v.name, func() error { return v.ask(f, "", "no_databases") })
		}
	}
	f.end(syscall.SIGTERM)
	db := makeWAL(t, filepath.Join(f.dir, "app.db"))
	for command, want := range map[string]string{"status": "daemon_down", "why": "No daemon answers",
		"top": "daemon_down"} {
		args := []string{"--config", f.config, command, db}
		if command == "top" {
			args = append(args, "--once")
		}
		cmd := exec.Command(binary, args...)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) || command != "top" && cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("%s, exit code %d: %s", command, cmd.ProcessState.ExitCode(), out)
		}
	}
}

// dialAdmin returns a client of the daemon's admin socket.
func (f *fleet) dialAdmin() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{Dial: func(_, _ string) (net.Conn, error) {
		return net.Dial("unix", filepath.Join(f.daemon.dir, "admin.sock"))
	}}}
}

// post asks for an action by the admin socket; what it answers is seen by the views.
func (f *fleet) post(path string) {
	f.t.Helper()
	answer, err := f.dialAdmin().Post("http://sqlwatch"+path, "", nil)
	must(f.t, err)
	must(f.t, answer.Body.Close())
}
