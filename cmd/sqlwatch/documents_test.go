package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every command of sqlwatch that a document shows is one that it understands: its name, its
// flags, its arguments.
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
	fenced  = regexp.MustCompile("(?s)```(?:sh|console)?\n(.*?)```")
	begins  = regexp.MustCompile(`(?m)^Exec(?:Start|Reload)=/usr/bin/sqlwatch (.*)$`)
)

// commandsOf returns what follows "sqlwatch" in code spans, in blocks of shell, and in units.
func commandsOf(text string) (all []string) {
	take := func(matches [][]string) {
		for _, m := range matches {
			all = append(all, m[1])
		}
	}
	take(inSpan.FindAllStringSubmatch(text, -1))
	take(begins.FindAllStringSubmatch(text, -1))
	for _, block := range fenced.FindAllStringSubmatch(text, -1) {
		take(inBlock.FindAllStringSubmatch(block[1], -1))
	}
	return all
}

// words splits a command as a shell does, up to what is not its own. It is not whole where
// it only hints at what follows, or names alternatives.
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
