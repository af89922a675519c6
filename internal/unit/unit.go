// Package unit knows where a packaged sqlwatch lives: the sockets of the systemd
// units, and the file from which systemd gives them their credentials. Commands look
// there, so that what works in the service works in a shell of root too.
package unit

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// ConfigDir is where a packaged sqlwatch is configured.
const ConfigDir = "/etc/sqlwatch"

// Sockets returns the admin sockets that are there of sqlwatch.service and of each
// sqlwatch@.service below run, which is /run.
func Sockets(run string) []string {
	var found []string
	for _, pattern := range []string{"sqlwatch/admin.sock", "sqlwatch-*/admin.sock"} {
		names, _ := filepath.Glob(filepath.Join(run, pattern)) // the pattern is good
		found = append(found, names...)
	}
	return slices.DeleteFunc(found, func(name string) bool {
		info, err := os.Stat(name)
		return err != nil || info.Mode().Type() != fs.ModeSocket
	})
}

// EnvironmentFile returns the file from which systemd gives the unit with this
// configuration, a file or a directory, its environment.
func EnvironmentFile(config string) string {
	if info, err := os.Stat(config); err == nil && !info.IsDir() {
		config = filepath.Dir(config)
	}
	return filepath.Join(config, "environment")
}

// Environment reads an EnvironmentFile: NAME=value lines, comments, quotes. A file that
// does not exist holds nothing.
func Environment(name string) (map[string]string, error) {
	file, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the unit's environment: %w", err)
	}
	values := map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(string(file)))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		for strings.HasSuffix(line, `\`) && lines.Scan() {
			line = strings.TrimSuffix(line, `\`) + strings.TrimSpace(lines.Text())
		}
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if key, value, ok := strings.Cut(line, "="); ok && key != "" {
			values[strings.TrimSpace(key)] = unquote(strings.TrimSpace(value))
		}
	}
	return values, lines.Err()
}

// unquote undoes what systemd's quotes and backslashes mean.
func unquote(s string) string {
	var out strings.Builder
	quote := rune(0)
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			escaped = false
			out.WriteRune(r)
		case r == '\\' && quote != '\'':
			escaped = true
		case quote == 0 && (r == '"' || r == '\''):
			quote = r
		case r == quote:
			quote = 0
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}
