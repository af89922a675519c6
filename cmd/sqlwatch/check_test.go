package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kingpin/v2"
)

// command runs one registered command and returns what it printed and its
// exit code.
func command(t *testing.T, register func(*kingpin.Application, *environment), args ...string) (stdout, stderr string,
	code int) {
	t.Helper()
	var out, diag bytes.Buffer
	env := &environment{Stdout: &out, Stderr: &diag, Getenv: func(string) (string, bool) { return "", false }}
	app := kingpin.New("sqlwatch", "").Terminate(nil)
	env.Config = app.Flag("config", "").String()
	register(app, env)
	if _, err := app.Parse(args); err != nil {
		exit := &exitError{code: exitFailure}
		errors.As(err, &exit)
		code = exit.code
	}
	return out.String(), diag.String(), code
}

func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sqlwatch.hcl")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCheck(t *testing.T) {
	t.Parallel()
	good := "database \"app\" {\n  path = \"/srv/app.db\"\n}\n"
	warns := good + "policy \"p\" {\n  when = wal.bytes > 100\n  checkpoint {}\n}\n"
	tests := []struct {
		name, text, flag string
		code             int
		stdout, stderr   string
	}{
		{"good", good, "", exitOK, "is good: 1 database, ", ""},
		{"F1_unknown_name", good + "policy \"p\" {\n  when = wal.byts > 0\n  sync {}\n}\n", "", exitFindings, "",
			`sqlwatch.hcl:5:10`},
		{"warning", warns, "", exitOK, "is good", `did you mean bytes("100MB")?`},
		{"warning, strict", warns, "--strict", exitFindings, "", "error: Number without a unit"},
		{"F7_same_file", good + "database \"two\" {\n  path = \"/srv/app.db\"\n}\n", "", exitFindings, "", "watched already"},
		{"F6_glob_without_match", "database \"t\" {\n  glob = \"/nowhere/*/x.db\"\n}\n", "", exitOK, "",
			"matches no file now"},
		{"no database", "server {\n  listen = \"127.0.0.1:0\"\n}\n", "", exitOK, "is good: 0 databases",
			"Nothing would be watched"},
		{"json", warns, "--json", exitOK, `"severity": "warning"`, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			args := []string{"check", configFile(t, test.text)}
			if test.flag != "" {
				args = append(args, test.flag)
			}
			stdout, stderr, code := command(t, registerCheck, args...)
			if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit %d, stdout %q, stderr %q; want %d, %q, %q", code, stdout, stderr, test.code, test.stdout,
					test.stderr)
			}
			if test.flag == "--json" && !json.Valid([]byte(stdout)) {
				t.Errorf("not JSON: %s", stdout)
			}
		})
	}
	if _, stderr, code := command(t, registerCheck, "check", "/no/such/configuration"); code != exitFailure ||
		!strings.Contains(stderr, "/no/such/configuration") {
		t.Errorf("missing file: exit %d, %q", code, stderr)
	}
}

// A secret in a file that others can read is a warning, and an error with --strict.
func TestCheck_F10_readable_secret(t *testing.T) {
	t.Parallel()
	path := configFile(t, "replica \"s3\" \"main\" {\n  bucket = \"b\"\n  credentials {\n    access_key = \"key\"\n    "+
		"secret_key = \"canary-5f1b7e\"\n  }\n}\n"+
		"database \"a\" {\n  path = \"/a.db\"\n  replicate_to = [replica.s3.main]\n}\n")
	for _, test := range []struct {
		mode os.FileMode
		args []string
		code int
		want string
	}{
		{0o644, []string{"check", path}, exitOK, "warning: Secrets in a readable file"},
		{0o644, []string{"check", "--strict", path}, exitFindings, "error: Secrets in a readable file"},
		{0o600, []string{"check", "--strict", path}, exitOK, ""},
	} {
		if err := os.Chmod(path, test.mode); err != nil {
			t.Fatal(err)
		}
		stdout, stderr, code := command(t, registerCheck, test.args...)
		if code != test.code || !strings.Contains(stderr, test.want) || test.want == "" && stderr != "" ||
			strings.Contains(stdout+stderr, "canary-5f1b7e") {
			t.Errorf("%v %v: exit %d, %q; want %d, %q", test.mode, test.args, code, stderr, test.code, test.want)
		}
	}
}

func TestFmt(t *testing.T) {
	t.Parallel()
	messy := "database \"app\" {\n path=\"/srv/app.db\"\n    labels   = {a=\"b\"}\n}\n"
	tidy := "database \"app\" {\n  path   = \"/srv/app.db\"\n  labels = { a = \"b\" }\n}\n"
	path := configFile(t, messy)
	stdout, _, code := command(t, registerFmt, "fmt", "--check", "--diff", path)
	if code != exitFindings || !strings.Contains(stdout, path+"\n") || !strings.Contains(stdout, "- path=") {
		t.Errorf("check: exit %d, %q", code, stdout)
	}
	if got, _ := os.ReadFile(path); string(got) != messy {
		t.Errorf("--check wrote %q", got)
	}
	if stdout, _, code = command(t, registerFmt, "fmt", path); code != exitOK || stdout != path+"\n" {
		t.Errorf("fmt: exit %d, %q", code, stdout)
	}
	got, err := os.ReadFile(path)
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || string(got) != tidy || info.Mode().Perm() != 0o600 {
		t.Errorf("formatted to %q, %v", got, info.Mode())
	}
	if stdout, _, code = command(t, registerFmt, "fmt", "--check", filepath.Dir(path)); code != exitOK || stdout != "" {
		t.Errorf("again: exit %d, %q", code, stdout)
	}
	bad := configFile(t, "database {{{\n")
	if _, stderr, code := command(t, registerFmt, "fmt", bad); code != exitFindings ||
		!strings.Contains(stderr, "sqlwatch.hcl:1") {
		t.Errorf("syntax error: exit %d, %q", code, stderr)
	}
	if got, _ := os.ReadFile(bad); string(got) != "database {{{\n" {
		t.Errorf("a file that does not parse was rewritten to %q", got)
	}
}

func TestExamplesAreFormatted(t *testing.T) {
	t.Parallel()
	if stdout, stderr, code := command(t, registerFmt, "fmt", "--check", "--diff", "../../examples"); code != exitOK {
		t.Errorf("%s%s", stdout, stderr)
	}
}
