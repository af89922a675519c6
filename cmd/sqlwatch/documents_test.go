package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// sqlwatch understands every command of its own that a document shows: its name, its flags, its
// arguments.
func TestDocumentedCommandsParse(t *testing.T) {
	t.Parallel()
	var pages []string
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../alerts/runbooks/*.md",
		"../../packaging/*.service", "../../examples/*/*.yml", "../../examples/*/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	seen := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, command := range commandsOf(string(text)) {
			args, whole := words(command)
			if !whole || len(args) == 0 {
				continue
			}
			seen++
			env := testEnvironment("nowhere")
			env.Stdout, env.Stderr = io.Discard, io.Discard
			app := newApplication(env)
			app.Terminate(nil)
			if _, err := app.ParseContext(dashed(args)); err != nil {
				t.Errorf("%s: `sqlwatch %s`: %v", page, strings.Join(args, " "), err)
			}
		}
	}
	if seen < 100 {
		t.Errorf("only %d commands were found", seen)
	}
}

var (
	inSpan  = regexp.MustCompile("`(?:sudo (?:-u [a-z]+ )?)?sqlwatch ([^`\n]+)`")
	inBlock = regexp.MustCompile("(?m)^ *(?:\\$ |docker exec [a-z]+ |sudo (?:-u [a-z]+ )?)?sqlwatch ([a-z][^\n]*)$")
	fenced  = regexp.MustCompile("(?ms)^ *```([a-z]*)\n(.*?)^ *```")
	begins  = regexp.MustCompile(`(?m)^Exec(?:Start|Reload)=/usr/bin/sqlwatch (.*)$`)
)

// commandsOf returns what follows "sqlwatch" in code spans, in blocks of shell, and in unit
// files.
func commandsOf(text string) (all []string) {
	take := func(matches [][]string) {
		for _, m := range matches {
			all = append(all, m[1])
		}
	}
	take(inSpan.FindAllStringSubmatch(text, -1))
	take(begins.FindAllStringSubmatch(text, -1))
	for _, block := range shellBlocks(text) {
		take(inBlock.FindAllStringSubmatch(block, -1))
	}
	return all
}

// shellBlocks returns the blocks of shell in a page. The expression matches blocks of other
// languages too, so that the end of one is not taken for the beginning of another.
func shellBlocks(text string) (blocks []string) {
	for _, m := range fenced.FindAllStringSubmatch(text, -1) {
		if m[1] == "" || m[1] == "sh" || m[1] == "console" {
			blocks = append(blocks, m[2])
		}
	}
	return blocks
}

// words splits a command as a shell does, up to a pipe, a comment or whatever else is not the
// command's own. whole is false if the command is only hinted at, or names alternatives.
func words(command string) (args []string, whole bool) {
	var word strings.Builder
	quote, open := rune(0), false
	for _, r := range command + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, open = r, true
		case r == ' ':
			if open || word.Len() > 0 {
				args = append(args, word.String())
			}
			word.Reset()
			open = false
		case strings.ContainsRune("|;&#<>()\\", r) && word.Len() == 0:
			return args, len(args) > 0
		case strings.ContainsRune("…[]", r):
			return nil, false
		default:
			word.WriteRune(r)
		}
	}
	return args, quote == 0
}

// The shell in the documents parses: what somebody copies into a terminal at night is not cut
// short by an unclosed quote.
func TestDocumentedShellParses(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range shellBlocks(string(text)) {
			commands := regexp.MustCompile(`(?m)^(sudo|sqlwatch|docker|systemctl|apt) `).MatchString(block)
			if !commands || strings.HasPrefix(block, "$ ") { // not shell, or a terminal session
				continue
			}
			seen++
			sh := exec.Command("sh", "-n")
			sh.Stdin = strings.NewReader(block)
			if out, err := sh.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s\n%s", page, err, out, block)
			}
		}
	}
	if seen < 8 {
		t.Errorf("only %d blocks of shell were found", seen)
	}
}
