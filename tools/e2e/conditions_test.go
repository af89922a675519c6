package e2e

import (
	"cmp"
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
	"sync"
	"syscall"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the table of docs/conditions.md that these tests prove")

const conditionsPage = "../../docs/conditions.md"

// only limits TestEveryConditionInEveryView to the scenes that one is working on.
var only = flag.String("scenes", "", "names of the scenes to make, as a regular expression; all for none")

// scene causes one condition of a database with the real program and real faults.
type scene struct {
	how string // what causes the condition, for the table of docs/conditions.md

	prepare func(f *fleet, db *member) // before the daemon starts
	before  func(f *fleet, db *member) // during an earlier run of it, whose clock is 60 hours behind; nil: there is none
	between func(f *fleet, db *member) // between the two runs
	trouble func(f *fleet, db *member) // once the daemon runs
}

// member is the database of one scene, named after its condition.
type member struct {
	name, path string
	lines      string // further lines of its database block
	more       string // further blocks of the configuration
	apart      bool   // this database is not expected to have the condition
	disk       *fragile
}

// fleet is a daemon with a database for each scene.
type fleet struct {
	*daemon
	t       *testing.T
	dir     string
	program string   // runs the daemon and the commands
	as      []string // runs the daemon as another user; nil: as this one
	members []*member
	mu      sync.Mutex
	planted []string // panics planted in the daemon
	store   *faultyStore

	prometheus string
}

// holding is a condition of a database, or of sqlwatch itself where db is "".
type holding struct{ db, id string }

func (h holding) String() string { return strings.TrimSpace(h.db + " " + h.id) }

// view is one place that shows what is wrong. ask reads it once, and returns a function that
// returns an error unless the view shows the given condition.
type view struct {
	name string
	ask  func(f *fleet) (func(holding) error, error)
}

var views = []view{
	{"page", func(f *fleet) (func(holding) error, error) {
		return func(h holding) error {
			at := f.url + "/"
			if h.db != "" {
				at += "?db=" + url.QueryEscape(h.db)
			}
			return contains(at, "<b>"+h.id+"</b>")
		}, nil
	}},
	{"status", func(f *fleet) (func(holding) error, error) { return f.says("status") }},
	{"why", func(f *fleet) (func(holding) error, error) {
		return func(h holding) error {
			told, err := f.says("why", h.db)
			if err == nil {
				err = told(h)
			}
			return err
		}, nil
	}},
	{"top", func(f *fleet) (func(holding) error, error) { return f.says("top", "--once") }},
	{"doctor", func(f *fleet) (func(holding) error, error) { return f.diagnosed() }},
	{"/-/ready", func(f *fleet) (func(holding) error, error) {
		return matching(f.url+"/-/ready", func(h holding) string {
			return "(?m)^" + cmp.Or(h.db, "sqlwatch") + ": [a-z]+ " + h.id + ": "
		})
	}},
	{"API", func(f *fleet) (func(holding) error, error) {
		held, err := f.held()
		return func(h holding) error {
			if held[h] == "" {
				return fmt.Errorf("%v", held)
			}
			return nil
		}, err
	}},
	{"metric", func(f *fleet) (func(holding) error, error) {
		return matching(f.url+"/metrics?name[]=sqlwatch_condition", func(h holding) string {
			return fmt.Sprintf(`(?m)^sqlwatch_condition\{condition="%s",db="%s",severity="[a-z]+"\} 1$`, h.id, h.db)
		})
	}},
	{"alert", func(f *fleet) (func(holding) error, error) { return f.firing() }},
	{"runbook", func(f *fleet) (func(holding) error, error) {
		text, err := os.ReadFile(conditionsPage)
		return func(h holding) error {
			if !strings.Contains(string(text), "\n## "+h.id+"\n") {
				return errors.New("docs/conditions.md has no section of it")
			}
			return f.runbooks(h)
		}, err
	}},
}

// contains fetches a page and returns an error unless it contains the text.
func contains(at, want string) error {
	text, err := get(at)
	if err == nil && !strings.Contains(text, want) {
		err = fmt.Errorf("%s lacks %q", at, want)
	}
	return err
}

// matching fetches a page and returns a function that returns an error unless the page matches
// the expression of a condition.
func matching(at string, expression func(holding) string) (func(holding) error, error) {
	text, err := get(at)
	return func(h holding) error {
		if e := expression(h); !regexp.MustCompile(e).MatchString(text) {
			return fmt.Errorf("%s is not in %s", e, text)
		}
		return nil
	}, err
}

// command runs a command of sqlwatch that reports conditions; its exit code 2 means that somebody
// must act. A command that waits for a hung disk cannot be ended, not even by SIGKILL: then what
// it has printed counts, and the exit code is taken to be 2.
func (f *fleet) command(args ...string) (out string, code int, err error) {
	printed, err := os.CreateTemp(f.t.TempDir(), "printed")
	if err != nil {
		return "", 0, err
	}
	defer printed.Close()
	cmd := exec.Command(f.program, append([]string{"--config", f.config}, args...)...)
	cmd.Stdout, cmd.Stderr = printed, printed
	if err := cmd.Start(); err != nil {
		return "", 0, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
		code = cmd.ProcessState.ExitCode()
	case <-time.After(patience / 2):
		_ = cmd.Process.Kill()
		code = 2
	}
	text, readErr := os.ReadFile(printed.Name())
	if readErr != nil || code != 0 && code != 2 {
		return "", code, fmt.Errorf("%v: %w: %s", args, errors.Join(err, readErr), text)
	}
	return string(text), code, nil
}

// says runs a command that prints conditions in the format of status.
func (f *fleet) says(args ...string) (func(holding) error, error) {
	out, code, err := f.command(args...)
	return func(h holding) error {
		m := regexp.MustCompile("(?m)^" + cmp.Or(h.db, "sqlwatch") + `: ([A-Z]+) \(` + h.id + `\b`).FindStringSubmatch(out)
		switch {
		case m == nil:
			return fmt.Errorf("%v, exit code %d, does not say so: %s", args, code, out)
		case m[1] != "INFO" && code != 2:
			return fmt.Errorf("%v says so and exits with %d", args, code)
		}
		return nil
	}, err
}

// diagnosed runs doctor, which has a section for each database.
func (f *fleet) diagnosed() (func(holding) error, error) {
	out, code, err := f.command("doctor", "--no-replicas", "--settings=none")
	return func(h holding) error {
		_, section, _ := strings.Cut("\n\n"+out, "\n\n"+cmp.Or(h.db, "this machine"))
		section, _, _ = strings.Cut(section, "\n\n")
		if code != 2 || !strings.Contains(section, " "+h.id+", says the daemon: ") {
			return fmt.Errorf("doctor, exit code %d, does not say so: %s", code, out)
		}
		return nil
	}, err
}

// held asks the API which conditions hold, and how severe each is.
func (f *fleet) held() (map[holding]string, error) {
	text, err := get(f.url + "/api/v1/health")
	if err != nil {
		return nil, err
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
		return nil, err
	}
	held := map[holding]string{}
	note := func(db string, all []condition) {
		for _, c := range all {
			if c.What != "" && c.Why != "" && c.Cure != "" {
				held[holding{db, c.ID}] = c.Severity
			}
		}
	}
	note("", health.Conditions)
	for _, d := range health.Databases {
		note(d.Name, d.Conditions)
	}
	return held, nil
}

// severity asks the API how severe a condition is, and returns an error if it does not hold.
func (f *fleet) severity(db, id string) (string, error) {
	held, err := f.held()
	if err == nil && held[holding{db, id}] == "" {
		err = fmt.Errorf("%s %s is not in %v", db, id, held)
	}
	return held[holding{db, id}], err
}

// Every condition is made to happen, and every view shows it.
func TestEveryConditionInEveryView_V3(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount disks and to give files away")
	}
	t.Parallel()
	f := newFleet(t)
	wanted := regexp.MustCompile(*only)
	for _, id := range sortedScenes() {
		if scenes[id].prepare != nil && wanted.MatchString(id) {
			f.add(id)
		}
	}
	f.together(f.members, func(s *scene) func(*fleet, *member) { return s.prepare })
	well := f.add("well")
	well.apart = true
	toFile(f, well)
	f.earlier()
	f.start()
	f.write(well)
	f.together(f.members, func(s *scene) func(*fleet, *member) { return s.trouble })
	var expected []holding
	for _, m := range f.members {
		if !m.apart {
			expected = append(expected, holding{m.name, m.name})
		}
	}
	f.mistake()
	for _, id := range []string{"left_out", "reload_failed", "notification_failed", "handler_panicked"} {
		if scenes[id].prepare == nil || wanted.MatchString(id) {
			expected = append(expected, holding{"", id})
		}
	}
	f.everywhere(expected)
	eventually(t, patience, "the healthy database has no condition of its replica", func() error {
		held, err := f.held()
		if err == nil && slices.ContainsFunc(slices.Collect(maps.Keys(held)), func(h holding) bool {
			return h.db == well.name && strings.HasPrefix(h.id, "replica")
		}) {
			err = fmt.Errorf("%v", held)
		}
		return err
	})
	if *only == "" {
		must(t, f.runbooks(holding{"well", ""}))
		f.quietLog()
	}
	f.store.Break(nil) // otherwise the daemon's last sync would wait for the store
}

// A daemon may read another user's database but must not create files beside it; every view shows
// that.
func TestForeignOwnerInEveryView_V3(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run a program as another user")
	}
	t.Parallel()
	program, err := impatient()
	must(t, err)
	f := &fleet{t: t, dir: t.TempDir(), program: program, as: []string{"setpriv", "--reuid=65533", "--regid=65533",
		"--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override"}}
	m := f.add("foreign_owner")
	plain(f, m)
	f.start()
	f.everywhere([]holding{{m.name, m.name}})
}

// The file system of the state directory becomes read-only; every view shows that.
func TestStateDirectoryReadOnlyInEveryView_V3(t *testing.T) {
	disk := newFragile(t)
	t.Parallel()
	program, err := impatient()
	must(t, err)
	f := &fleet{t: t, dir: disk.dir, program: program}
	toFile(f, f.add("kept"))
	f.start()
	disk.fail()
	f.everywhere([]holding{{"", "state_directory_read_only"}})
}

// quietLog checks that the daemon logs a lasting condition in a few lines, not in one for each
// attempt.
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

// mistake puts two mistakes into the configuration, one after the other, and reloads it after
// each: a second block for a database that is watched already, which is left out while the rest
// is accepted, and a policy for which the whole configuration is refused.
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

// everywhere waits until all conditions hold and every view has shown them. It reads a view once
// for all conditions, and if some are missing waits before it reads the view again: to answer for
// forty databases is work for the daemon that has to notice the conditions.
func (f *fleet) everywhere(expected []holding) {
	f.t.Helper()
	begun := time.Now()
	holds, asked := map[holding]bool{}, map[string]time.Time{}
	pause := 20 * time.Second
	lacks := map[string]map[holding]error{} // by view
	for _, v := range views {
		asked[v.name] = begun
		lacks[v.name] = map[holding]error{}
		for _, h := range expected {
			if v.name != "why" || h.db != "" { // why explains one database
				lacks[v.name][h] = errors.New("it never held")
			}
		}
	}
	for unseen := len(views); unseen > 0 && time.Since(begun) < 2*patience; time.Sleep(200 * time.Millisecond) {
		held, err := f.held()
		if err != nil {
			f.t.Log(err) // the machine is busy; the next round asks again
		}
		for _, h := range expected {
			if held[h] != "" && !holds[h] {
				f.t.Logf("%s: %s after %s", h, held[h], time.Since(begun).Round(time.Second))
				holds[h] = true
			}
		}
		if len(holds) == len(expected) {
			pause = min(pause, 5*time.Second)
		}
		unseen = 0
		for _, v := range views {
			of := lacks[v.name]
			if time.Since(asked[v.name]) > pause && slices.ContainsFunc(slices.Collect(maps.Keys(of)),
				func(h holding) bool { return holds[h] }) {
				f.look(v, of, holds)
				asked[v.name] = time.Now()
			}
			unseen += len(of)
		}
	}
	for name, of := range lacks {
		for h, err := range of {
			f.t.Errorf("%s in %s: %v", h, name, err)
		}
	}
}

// look asks one view, and deletes from lacks the conditions that it shows.
func (f *fleet) look(v view, lacks map[holding]error, holds map[holding]bool) {
	told, err := v.ask(f)
	var mu sync.Mutex
	var asking sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, h := range slices.Collect(maps.Keys(lacks)) {
		if !holds[h] {
			continue
		}
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			one := err
			if one == nil {
				one = told(h)
			}
			mu.Lock()
			defer mu.Unlock()
			if lacks[h] = one; one == nil {
				delete(lacks, h)
			}
		})
	}
	asking.Wait()
}

// firing asks Prometheus for which conditions an alert fires. Conditions of severity info have no
// alert.
func (f *fleet) firing() (func(holding) error, error) {
	alerts, err := query(f.prometheus, `ALERTS{alertname=~"SqlwatchCondition.*",alertstate="firing"}`, "condition")
	if err != nil {
		return nil, err
	}
	held, err := f.held()
	return func(h holding) error {
		switch _, fires := alerts[h.id]; {
		case held[h] == "info" && fires:
			return fmt.Errorf("it is an info, and fires %v", alerts)
		case held[h] != "info" && !fires:
			return fmt.Errorf("it does not fire: %v", alerts)
		}
		return nil
	}, err
}

func sortedScenes() []string { return slices.Sorted(maps.Keys(scenes)) }

// The table in docs/conditions.md says for every condition how these tests cause it, and every
// scene is of a condition.
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
		if scenes[id].how == "" {
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
		t.Errorf("%s is out of step: go test -run HasAScene -update in tools/e2e rewrites it", conditionsPage)
	}
}

// sceneTable returns the table of docs/conditions.md: what causes each condition, and which views
// show it.
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
		case id == "daemon_down":
			fmt.Fprintf(&b, "| `%s` | %s | status, why, top |\n", id, s.how)
		default:
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", id, s.how, seen)
		}
	}
	return b.String()
}

// ofItself are the conditions of the daemon itself, not of a database.
var ofItself = []string{"daemon_down", "reload_failed", "left_out", "no_databases", "handler_panicked",
	"notification_failed", "state_directory_read_only"}

// A daemon that finds no database reports that. If no daemon runs, the commands find that out
// themselves and report it.
func TestDaemonConditions_V3(t *testing.T) {
	t.Parallel()
	f := &fleet{t: t, dir: t.TempDir(), program: binary}
	f.daemon = startDaemon(t, fmt.Sprintf("database \"none\" {\n  glob = %q\n}\n", filepath.Join(f.dir, "*.db")))
	for _, v := range views {
		if v.name == "why" || v.name == "alert" {
			continue // why explains one database; the alert rules treat all conditions alike
		}
		eventually(t, patience, "no_databases in "+v.name, func() error {
			told, err := v.ask(f)
			if err == nil {
				err = told(holding{"", "no_databases"})
			}
			return err
		})
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

// post requests an action through the admin socket; the views show its result.
func (f *fleet) post(path string) {
	f.t.Helper()
	answer, err := f.dialAdmin().Post("http://sqlwatch"+path, "", nil)
	must(f.t, err)
	must(f.t, answer.Body.Close())
}
