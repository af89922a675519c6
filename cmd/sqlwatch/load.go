package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sqlwatch/sqlwatch/internal/config"
)

const systemConfig = "/etc/sqlwatch"

// errNoConfig is returned where no configuration was named and none is installed.
var errNoConfig = errors.New("no configuration: name one with --config, set $SQLWATCH_CONFIG, or give database files " +
	"as arguments")

// configPath returns the configuration to use: --config, then $SQLWATCH_CONFIG,
// then /etc/sqlwatch if it exists.
func configPath(env *environment) (string, error) {
	if env.Config != nil && *env.Config != "" {
		return *env.Config, nil
	}
	if path, ok := env.Getenv("SQLWATCH_CONFIG"); ok && path != "" {
		return path, nil
	}
	if _, err := os.Stat(systemConfig); errors.Is(err, fs.ErrNotExist) {
		return "", errNoConfig
	} else if err != nil {
		return "", err
	}
	return systemConfig, nil
}

// loadConfig reads and checks the configuration. Its findings become one error,
// as `sqlwatch check` prints them; warnings go to standard error.
func loadConfig(env *environment) (*config.Config, error) {
	path, err := configPath(env)
	if err != nil {
		return nil, err
	}
	return loadConfigFrom(env, path)
}

func loadConfigFrom(env *environment, path string) (*config.Config, error) {
	cfg, diags := config.Load(path, env.Getenv)
	if !diags.HasErrors() {
		if len(diags) > 0 {
			config.WriteDiagnostics(env.Stderr, cfg.Files, diags, false)
		}
		return cfg, nil
	}
	var text bytes.Buffer
	if cfg != nil {
		config.WriteDiagnostics(&text, cfg.Files, diags, false)
	} else {
		config.WriteDiagnostics(&text, nil, diags, false)
	}
	return nil, &exitError{code: exitFindings, err: fmt.Errorf("the configuration %s has errors:\n%s", path,
		text.String())}
}
