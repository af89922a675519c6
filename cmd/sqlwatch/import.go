package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/alecthomas/kingpin/v2"

	"github.com/sqlwatch/sqlwatch/internal/config"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/importer"
	"github.com/sqlwatch/sqlwatch/internal/quote"
)

func registerImport(app *kingpin.Application, env *environment) {
	cmd := app.Command("import", "Turn a litestream.yml into a configuration of sqlwatch. What has no counterpart is "+
		"listed on standard error; exit code 2 when something was dropped.")
	source := cmd.Arg("litestream.yml", "Configuration of Litestream 0.3 or 0.5.").Default("/etc/litestream.yml").String()
	output := cmd.Flag("output", "File to write, readable by its owner only. Default: standard output.").Short(
		'o').PlaceHolder("FILE").String()
	force := cmd.Flag("force", "Replace an existing file.").Bool()
	literal := cmd.Flag("no-expand-env", "Take $ as it stands, as Litestream does under the same flag.").Bool()
	asJSON := cmd.Flag("json", "Print what was dropped as JSON on standard error.").Bool()
	cmd.Action(func(*kingpin.ParseContext) error {
		text, err := os.ReadFile(*source)
		if err != nil {
			return fmt.Errorf("read Litestream's configuration: %w", err)
		}
		result, err := importer.Convert(text, importer.Options{Getenv: env.Getenv, ExpandEnv: !*literal,
			Absolute: filepath.Abs, Source: filepath.Base(*source)})
		if err != nil {
			return fmt.Errorf("import %s: %w", *source, err)
		}
		if err := writeImported(env, *output, *force, result.HCL); err != nil {
			return err
		}
		return tellDropped(env, *output, *asJSON, result)
	})
}

func writeImported(env *environment, output string, force bool, text []byte) error {
	if output == "" {
		_, err := env.Stdout.Write(text)
		return err
	}
	if _, err := os.Lstat(output); !force && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already: nothing was written; use --force to replace it", output)
	}
	// It may contain keys that were written into the YAML file.
	return durable.WriteFile(output, text, 0o600)
}

// tellDropped prints the settings that have no counterpart, and what `sqlwatch check` would report
// about the written file.
func tellDropped(env *environment, output string, asJSON bool, result importer.Result) error {
	if err := printTo(env.Stderr, asJSON, result, result.Write); err != nil {
		return err
	}
	if output != "" {
		if cfg, diags := config.Load(output, env.Getenv); diags.HasErrors() {
			quote.Diagnostics(env.Stderr, cfg.Files, diags, false)
			return &exitError{code: exitFindings, err: fmt.Errorf("%s was written, but must be corrected before it can be "+
				"used: see above", output)}
		}
	}
	if len(result.Dropped) > 0 {
		return &exitError{code: exitFindings}
	}
	return nil
}
