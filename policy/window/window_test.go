package window_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"

	"github.com/sqlwatch/sqlwatch/internal/hcldecode"
	"github.com/sqlwatch/sqlwatch/policy/lang"
	"github.com/sqlwatch/sqlwatch/policy/window"
)

// read returns the windows of a configuration, the program they belong to, and the diagnostics.
func read(t *testing.T, src string) (*window.Set, *lang.Program, hcl.Diagnostics) {
	t.Helper()
	parser := hclparse.NewParser()
	file, diags := parser.ParseHCL([]byte(src), "sqlwatch.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, diags := file.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "window", LabelNames: []string{"name"}}}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	scope := &lang.Scope{Files: parser.Files()}
	program := lang.NewProgram(scope)
	d := &hcldecode.Decoder{Scope: scope}
	return window.Read(d, program, content.Blocks), program, d.Diags
}

const night = "window \"night\" {\n  cron = \"0 2 * * *\"\n  duration = \"3h\"\n}\n"

func learned(body string) string {
	return night + "window \"quiet\" {\n  learn {\n    signal = rate(wal.frames_written, \"1m\")\n" + body + "  }\n}\n"
}

// Each mistake has a diagnostic at its place.
func TestRead_mistakes(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct{ src, want string }{
		"no duration": {"window \"w\" {\n  cron = \"0 2 * * *\"\n}\n", "sqlwatch.hcl:1,1-11: Incomplete window"},
		"nothing":     {"window \"w\" {\n}\n", "sqlwatch.hcl:1,1-11: Incomplete window"},
		"two kinds": {"window \"w\" {\n  cron = \"0 2 * * *\"\n  learn {\n    signal = 1\n  }\n}\n",
			"Two kinds of window"},
		"twice": {night + night, "sqlwatch.hcl:5,1-15: Duplicate window"},
		"no such date": {"window \"w\" {\n  cron = \"0 0 31 2 *\"\n  duration = \"1h\"\n}\n",
			"sqlwatch.hcl:2,10-22: Bad schedule"},
		"too short": {"window \"w\" {\n  cron = \"0 2 * * *\"\n  duration = \"1s\"\n}\n", "sqlwatch.hcl:3,"},
		"time zone": {"window \"w\" {\n  cron = \"0 2 * * *\"\n  duration = \"1h\"\n  timezone = \"Mars/Olympus\"\n}\n",
			"sqlwatch.hcl:4,"},
		"quantile":             {learned("    quantile = 1\n"), "sqlwatch.hcl:8,16-17: Out of range"},
		"unknown fallback":     {learned("    fallback = window.day\n"), "sqlwatch.hcl:8,"},
		"itself as a fallback": {learned("    fallback = window.quiet\n"), "Bad fallback"},
		"itself excepted":      {learned("    except = [window.quiet]\n"), "Bad fallback"},
		"never open": {"window \"all\" {\n  cron = \"0 0 * * *\"\n  duration = \"24h\"\n}\n" +
			learned("    except = [window.all]\n"), "Never open"},
		"not a number":     {strings.Replace(learned(""), "rate(wal.frames_written, \"1m\")", "\"x\"", 1), "sqlwatch.hcl:7,"},
		"unknown argument": {learned("    quantil = 0.1\n"), "sqlwatch.hcl:8,"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			set, program, diags := read(t, c.src)
			if !diags.HasErrors() || !strings.Contains(diags.Error(), c.want) && !said(diags, c.want) {
				t.Errorf("it says %v; want %q", diags, c.want)
			}
			if len(set.Order) != len(set.Named) || len(program.Windows) != len(set.Named) {
				t.Errorf("%d in order, %d named, %d known to the program", len(set.Order), len(set.Named), len(program.Windows))
			}
		})
	}
}

func said(diags hcl.Diagnostics, want string) bool {
	for _, d := range diags {
		if strings.Contains(d.Error(), want) {
			return true
		}
	}
	return false
}

// States has the state of every window, in the order of their names. A learned window without data
// is open when its fallback is, and closed during its exceptions.
func TestStates(t *testing.T) {
	t.Parallel()
	set, program, diags := read(t, learned("    fallback = window.night\n    except = [window.monday]\n")+
		"window \"monday\" {\n  cron = \"0 3 * * 1\"\n  duration = \"1h\"\n  timezone = \"Europe/Berlin\"\n}\n"+
		"window \"alone\" {\n  learn {\n    signal = rate(wal.frames_written, \"1m\")\n  }\n}\n")
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	var names []string
	for _, w := range set.Order {
		names = append(names, w.Name)
	}
	if got := strings.Join(names, " "); got != "alone monday night quiet" || strings.Join(program.Windows, " ") != got {
		t.Fatalf("the order is %s, the program's %s", got, program.Windows)
	}
	if got := set.Named["quiet"].Learn.Location; got != time.UTC {
		t.Errorf("the week of a learned window goes by %s, not by its fallback's clock", got)
	}
	// Monday, 2 March 2026: the window of Berlin's Monday is open from 02:00 to 03:00 UTC.
	for _, c := range []struct {
		at     string
		open   map[string]lang.Truth
		closes map[string]string // after how long
		opens  map[string]string
	}{
		{"2026-03-02T01:30:00Z", map[string]lang.Truth{"night": lang.False, "monday": lang.False, "quiet": lang.False},
			nil, map[string]string{"night": "30m", "monday": "30m", "quiet": "1h30m"}},
		{"2026-03-02T02:30:00Z", map[string]lang.Truth{"night": lang.True, "monday": lang.True, "quiet": lang.False},
			map[string]string{"night": "2h30m", "monday": "30m"}, map[string]string{"quiet": "30m"}},
		{"2026-03-02T03:30:00Z", map[string]lang.Truth{"night": lang.True, "monday": lang.False, "quiet": lang.True},
			map[string]string{"night": "1h30m", "quiet": "1h30m"}, map[string]string{"monday": "166h30m"}},
		{"2026-03-08T23:00:00Z", map[string]lang.Truth{"night": lang.False, "monday": lang.False, "quiet": lang.False},
			nil, map[string]string{"night": "3h", "monday": "3h", "quiet": "4h"}},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		states := set.States(nil, program.At(lang.Moment{Now: at}), at)
		for i, w := range set.Order {
			got := states[i]
			if want, asked := c.open[w.Name]; asked && got.Open != want || !asked && got.Open != lang.Unknown {
				t.Errorf("%s: %s is %v", c.at, w.Name, got.Open)
			}
			if want := c.closes[w.Name]; want != "" && seconds(t, want) != got.ClosesIn {
				t.Errorf("%s: %s closes in %v s, want %s", c.at, w.Name, got.ClosesIn, want)
			}
			if want := c.opens[w.Name]; want != "" && seconds(t, want) != got.OpensIn {
				t.Errorf("%s: %s opens in %v s, want %s", c.at, w.Name, got.OpensIn, want)
			}
		}
	}
	if change := set.Named["night"].Change(time.Date(2026, 3, 2, 4, 0, 0, 0, time.UTC)); change.Hour() != 5 {
		t.Errorf("night changes next at %s", change)
	}
	if set.Named["quiet"].Open(time.Now()) != lang.Unknown || set.Named["quiet"].Openings(time.Now(), 3) != nil {
		t.Error("a learned window has no schedule of its own")
	}
}

func seconds(t *testing.T, length string) float64 {
	t.Helper()
	d, err := time.ParseDuration(length)
	if err != nil {
		t.Fatal(err)
	}
	return math.Round(d.Seconds())
}
