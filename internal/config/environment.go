package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

const nonblock = syscall.O_NONBLOCK

// secretMark marks values that came through secret().
const secretMark = "secret"

// environment is what env, file and secret reach, and the values that must
// not be shown in a diagnostic.
type environment struct {
	lookup func(string) (string, bool)
	files  map[string]string // by path: a file is read once
	hide   []string
	// sealed ends the loading: expressions evaluated later, by many databases
	// at once, get what has been read and change nothing.
	sealed bool
}

func newEnvironment(lookup func(string) (string, bool)) *environment {
	return &environment{lookup: lookup, files: map[string]string{}}
}

func (e *environment) functions() map[string]function.Function {
	return map[string]function.Function{
		"env":    e.env(),
		"file":   e.file(),
		"secret": e.secret(),
	}
}

// env returns the environment variable of its first argument, or its second
// argument where that is not set.
func (e *environment) env() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "name", Type: cty.String}},
		VarParam: &function.Parameter{Name: "default", Type: cty.String, AllowNull: true},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if len(args) > 2 {
				return cty.NilVal, errors.New("env takes a name and at most one default")
			}
			name := args[0].AsString()
			if v, ok := e.lookup(name); ok {
				e.conceal(v)
				return cty.StringVal(v), nil
			}
			if len(args) == 2 {
				return args[1], nil
			}
			return cty.NilVal, fmt.Errorf("the environment variable %s is not set; set it, or give a default: env(%q, \"…\")", name, name)
		},
	})
}

// file returns a file's text without the line break at its end.
func (e *environment) file() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			path := args[0].AsString()
			if s, ok := e.files[path]; ok {
				return cty.StringVal(s), nil
			}
			if e.sealed {
				return cty.NilVal, fmt.Errorf("read %s: the path must be known when the configuration is read", path)
			}
			data, _, err := readFile(path)
			if err != nil {
				return cty.NilVal, fmt.Errorf("read %s: %w", path, err)
			}
			s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
			e.files[path] = s
			e.conceal(s)
			return cty.StringVal(s), nil
		},
	})
}

func (e *environment) secret() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.String, AllowNull: true}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if !args[0].IsNull() {
				e.conceal(args[0].AsString())
			}
			return args[0].Mark(secretMark), nil
		},
	})
}

// conceal keeps a value out of diagnostics. Very short ones would take
// harmless letters with them and are no secrets.
func (e *environment) conceal(s string) {
	if !e.sealed && len(s) >= 4 && !slices.Contains(e.hide, s) {
		e.hide = append(e.hide, s)
	}
}

// scrub takes concealed values out of a message.
func (e *environment) scrub(s string) string {
	for _, h := range e.hide {
		s = strings.ReplaceAll(s, h, hidden)
	}
	return s
}

// clean takes secrets out of diagnostics: from their text, and the values of
// variables that the library would print with them.
func (e *environment) clean(diags hcl.Diagnostics) hcl.Diagnostics {
	for _, d := range diags {
		d.Summary, d.Detail = e.scrub(d.Summary), e.scrub(d.Detail)
		d.Expression, d.EvalContext = nil, nil
	}
	return diags
}

// secretLiterals finds secrets written into a file: the argument of secret(),
// and literal credentials.
var secretLiterals = regexp.MustCompile(`(\bsecret\(\s*|"?\b(?:access_key|secret_key|session_token|url)"?\s*[=:]\s*)"(?:[^"\\]|\\.)*"?`)

func literalSecret(data []byte) bool {
	for _, m := range secretLiterals.FindAllString(string(data), -1) {
		if !strings.Contains(m, "url") && !strings.Contains(m, "${") {
			return true
		}
	}
	return false
}

// redact hides the secrets of a source line.
func redact(line string) string { return secretLiterals.ReplaceAllString(line, `$1"…"`) }
