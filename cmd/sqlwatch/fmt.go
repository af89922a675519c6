package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/quote"
)

// registerFmt adds `sqlwatch fmt`: it rewrites *.hcl files in the canonical layout and
// prints the names of those that changed. With --check it writes nothing and exits
// with 2 if a file would change.
func registerFmt(app *kingpin.Application, env *environment) {
	cmd := app.Command("fmt", "Format configuration files.")
	path := cmd.Arg("config", "File or directory; default as --config.").String()
	check := cmd.Flag("check", "Write nothing; exit 2 where a file would change.").Bool()
	diff := cmd.Flag("diff", "Print the lines that change.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		f := formatter{env: env, check: *check, diff: *diff}
		path, err := orConfig(*path, env)
		if err != nil {
			return err
		}
		return f.run(path)
	})
}

// formatter is one run of fmt.
type formatter struct {
	env         *environment
	check, diff bool
	changed     int
}

func (f *formatter) run(path string) error {
	names, err := hclFiles(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := f.file(name); err != nil {
			return err
		}
	}
	if f.check && f.changed > 0 {
		return &exitError{code: exitFindings}
	}
	return nil
}

// hclFiles returns the native-syntax files at a path, including policy tests.
func hclFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	return filepath.Glob(filepath.Join(path, "*.hcl"))
}

func (f *formatter) file(name string) error {
	before, mode, diags := config.ReadSource(name)
	if !diags.HasErrors() {
		_, diags = hclsyntax.ParseConfig(before, name, hcl.InitialPos)
	}
	if diags.HasErrors() {
		// Formatting a file that does not parse would have to guess what it means.
		quote.Diagnostics(f.env.Stderr, map[string]*hcl.File{name: quote.Quotable(name, before)}, diags,
			isTerminal(f.env.Stderr))
		return exitOf(diags)
	}
	after := hclwrite.Format(before)
	if bytes.Equal(before, after) {
		return nil
	}
	f.changed++
	fmt.Fprintln(f.env.Stdout, name)
	if f.diff {
		writeLineDiff(f.env.Stdout, quote.Redact(name, before), quote.Redact(name, after))
	}
	if f.check {
		return nil
	}
	return write(name, after, mode)
}

// write replaces the file that the name refers to; if it is a link, its target.
func write(name string, data []byte, mode fs.FileMode) error {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return fmt.Errorf("format %s: %w", name, err)
	}
	if err := durable.WriteFile(target, data, mode.Perm()); err != nil {
		return fmt.Errorf("format %s: %w", name, err)
	}
	return nil
}

// writeLineDiff prints the lines that differ. Formatting only moves spaces within lines, so
// line n before is line n after.
func writeLineDiff(w io.Writer, before, after string) {
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for i := range max(len(old), len(now)) {
		a, b := line(old, i), line(now, i)
		if a == b {
			continue
		}
		fmt.Fprintf(w, "@@ line %d @@\n", i+1)
		if i < len(old) {
			fmt.Fprintf(w, "-%s\n", a)
		}
		if i < len(now) {
			fmt.Fprintf(w, "+%s\n", b)
		}
	}
}

func line(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
