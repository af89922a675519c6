// Package cli is what the command line needs beside its commands: what was meant by a word
// that is none, completion and manual page, and signs of life while something is waited for.
package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/show"
)

// elsewhere are words of other programs for what a command of ours does.
var elsewhere = map[string]string{
	"replicate": "run", "daemon": "run", "start": "run", "serve": "run", // Litestream's come first
	"databases": "status", "dbs": "status", "list": "status", "info": "status", "ps": "status", "ls": "status",
	"generations": "snapshots", "ltx": "wal", "backups": "snapshots", "backup": "snapshot",
	"validate": "check", "lint": "check", "format": "fmt", "explain": "why", "locks": "blockers", "who": "blockers",
	"unpause": "resume", "vacuum": "checkpoint", "truncate": "checkpoint", "drill": "verify", "benchmark": "bench",
}

// UsageError is a command line that is not understood, with what may have been meant.
type UsageError struct {
	cause error
	meant string
}

// Error returns what is wrong, and what may have been meant.
func (e *UsageError) Error() string {
	if e.meant == "" {
		return e.cause.Error() + "; see sqlwatch --help"
	}
	return e.cause.Error() + "; did you mean " + e.meant + "?"
}

// Unwrap returns the parser's own error.
func (e *UsageError) Unwrap() error { return e.cause }

// Explain returns the error of a command line that the parser refused, with a suggestion.
func Explain(app *kingpin.Application, args []string, cause error) error {
	model := app.Model()
	if flag := unknownBefore(model, args); flag != "" {
		meant := show.Nearest(strings.Trim(flag, "-"), flagsOf(model, args))
		return &UsageError{fmt.Errorf("there is no flag %s", flag), dashed(meant)}
	}
	if word := firstWord(model, args); word != "" {
		meant := elsewhere[word]
		if meant == "" {
			meant = show.Nearest(word, commands(model))
		}
		if meant != "" {
			meant = model.Name + " " + meant
		}
		return &UsageError{fmt.Errorf("%q is no command", word), meant}
	}
	for _, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "-v" || arg == "-V" { // of other programs, for two things
			return &UsageError{fmt.Errorf("there is no flag %s", arg), "--version, or --log.level=debug of " + model.Name +
				" run"}
		}
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if name == "" || arg[0] != '-' {
			continue
		}
		flags := flagsOf(model, args)
		known := slices.Contains(flags, strings.TrimPrefix(name, "no-")) || slices.Contains(flags, name)
		switch {
		case strings.HasPrefix(arg, "--") && !known:
			return &UsageError{fmt.Errorf("there is no flag --%s%s", name, here(model, args)), dashed(show.Nearest(name, flags))}
		case !strings.HasPrefix(arg, "--") && len(name) > 1 && known:
			return &UsageError{fmt.Errorf("-%s has one dash", name), "--" + name}
		}
	}
	return &UsageError{cause: cause}
}

func dashed(flag string) string {
	if flag == "" {
		return ""
	}
	return "--" + flag
}

// here names the command that a flag was given to.
func here(model *kingpin.ApplicationModel, args []string) string {
	if c := commandOf(model, args); c != nil {
		return " of " + model.Name + " " + c.Name
	}
	return ""
}

// firstWord returns the first argument that is no flag and no flag's value where it is no
// command, else "".
func firstWord(model *kingpin.ApplicationModel, args []string) string {
	for i, arg := range args {
		if arg == "" || arg[0] == '-' {
			continue
		}
		if i > 0 && slices.ContainsFunc(model.Flags, func(f *kingpin.FlagModel) bool {
			return !f.IsBoolFlag() && strings.TrimLeft(args[i-1], "-") == f.Name
		}) {
			continue
		}
		if slices.Contains(commands(model), arg) {
			return ""
		}
		return arg
	}
	return ""
}

// unknownBefore returns a flag before the command that there is not: its value would be taken
// for the command.
func unknownBefore(model *kingpin.ApplicationModel, args []string) string {
	for i, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		switch {
		case slices.Contains(commands(model), arg), arg == "--":
			return ""
		case strings.HasPrefix(arg, "--") && !slices.Contains(flagsOf(model, args), strings.TrimPrefix(name, "--")) &&
			!slices.Contains(flagsOf(model, args), strings.TrimPrefix(name, "--no-")) && i < len(args)-1:
			return name
		}
	}
	return ""
}

func commands(model *kingpin.ApplicationModel) []string {
	var names []string
	for _, c := range model.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func commandOf(model *kingpin.ApplicationModel, args []string) *kingpin.CmdModel {
	for _, arg := range args {
		for _, c := range model.Commands {
			if c.Name == arg {
				return c
			}
		}
	}
	return nil
}

// flagsOf returns the flags that may stand in a command line.
func flagsOf(model *kingpin.ApplicationModel, args []string) []string {
	all := model.Flags
	if c := commandOf(model, args); c != nil {
		all = append(all[:len(all):len(all)], c.Flags...)
		for _, sub := range c.Commands {
			if slices.Contains(args, sub.Name) {
				all = append(all[:len(all):len(all)], sub.Flags...)
			}
		}
	}
	var names []string
	for _, f := range all {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	}
	return names
}

const fishCompletion = `# completion of {{.App.Name}} for fish
complete -c {{.App.Name}} -a '({{.App.Name}} --completion-bash (commandline -opc)[2..-1] (commandline -ct))'
`

// Completion writes what a shell (bash, zsh or fish) completes the program's words by.
func Completion(app *kingpin.Application, w io.Writer, shell string) error {
	text := map[string]string{"bash": kingpin.BashCompletionTemplate, "zsh": kingpin.ZshCompletionTemplate,
		"fish": fishCompletion}[shell]
	return render(app, w, strings.TrimPrefix(text, "\n"))
}

// Man writes the manual page, as man reads it.
func Man(app *kingpin.Application, w io.Writer) error { return render(app, w, kingpin.ManPageTemplate) }

func render(app *kingpin.Application, w io.Writer, template string) error {
	context, err := app.ParseContext(nil)
	if err != nil {
		return err
	}
	app.UsageWriter(w)
	return app.UsageForContextWithTemplate(context, 2, template)
}
