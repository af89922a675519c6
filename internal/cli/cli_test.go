package cli

import (
	"bytes"
	"errors"
	"os/exec"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
)

func application() *kingpin.Application {
	app := kingpin.New("sqlwatch", "")
	app.Terminate(nil)
	app.Flag("config", "").String()
	app.Command("run", "Run it.").Flag("replica", "").String()
	app.Command("status", "")
	app.Command("snapshots", "").Arg("db", "").Required().String()
	app.Command("wal", "").Arg("db", "").Required().String()
	restore := app.Command("restore", "Make a database file from a replica.")
	restore.Arg("db", "").Required().String()
	restore.Flag("timestamp", "").String()
	restore.Flag("output", "").Short('o').String()
	restore.Flag("force", "").Bool()
	return app
}

// People who know Litestream, or mistype, are told what they may have meant.
func TestExplain(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"replicate":                            `"replicate" is no command; did you mean sqlwatch run?`,
		"databases":                            "did you mean sqlwatch status?",
		"ltx app":                              "did you mean sqlwatch wal?",
		"restor app":                           "did you mean sqlwatch restore?",
		"xyzzy":                                "see sqlwatch --help",
		"--config x.hcl replicate":             "did you mean sqlwatch run?",
		"run -config x.hcl":                    "-config has one dash; did you mean --config?",
		"restore -timestamp 10m app":           "did you mean --timestamp?",
		"restore --timestmap=10m app":          "there is no flag --timestmap of sqlwatch restore; did you mean --timestamp?",
		"restore -o x --no-such-flag-at-all a": "see sqlwatch --help",
		"restore":                              "required argument 'db' not provided; see sqlwatch --help",
	} {
		args := strings.Fields(line)
		app := application()
		_, err := app.Parse(args)
		if err == nil {
			t.Errorf("%s was understood", line)
			continue
		}
		err = Explain(app, args, err)
		var usage *UsageError
		if !strings.Contains(err.Error(), want) || !errors.As(err, &usage) {
			t.Errorf("%s: %v; want %s", line, err, want)
		}
	}
}

func TestCompletionAndMan(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish"} {
		var out bytes.Buffer
		if err := Completion(application(), &out, shell); err != nil || !strings.Contains(out.String(), "--completion-bash") {
			t.Errorf("%s: %v\n%s", shell, err, &out)
		}
		if shell != "bash" {
			continue
		}
		check := exec.Command("bash", "-n")
		check.Stdin = &out
		if text, err := check.CombinedOutput(); err != nil {
			t.Errorf("bash refuses its completion: %v\n%s", err, text)
		}
	}
	var out bytes.Buffer
	if err := Man(application(), &out); err != nil || !strings.HasPrefix(out.String(), ".TH sqlwatch 1") {
		t.Errorf("%v\n%s", err, &out)
	}
}

// What takes long shows a sign of life within a second, and leaves nothing on the terminal.
func TestWaiting(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	done := waiting(&out, "asking s3://bucket")
	done() // it ends at once: nothing is shown
	if out.Len() > 0 {
		t.Errorf("shown although it ended at once: %q", out.String())
	}
	if f := Terminal(&out); f != nil {
		t.Error("a buffer is no terminal")
	}
	Waiting(&out, "x")()
}
