package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/sqlwatch/sqlwatch/internal/quote"
	"github.com/sqlwatch/sqlwatch/policy/lang/limits"
	"github.com/sqlwatch/sqlwatch/policy/lang/marks"
)

const nonblock = syscall.O_NONBLOCK

// environment is what env, file and secret reach, and the values that must
// not be shown in a diagnostic.
type environment struct {
	lookup func(string) (string, bool)
	files  map[string]string // by path: a file is read once
	hide   []string
	hidden map[string]bool // the same
	// sealed ends the loading: expressions evaluated later, by many databases
	// at once, get what has been read and change nothing.
	sealed bool
}

func newEnvironment(lookup func(string) (string, bool)) *environment {
	return &environment{lookup: lookup, files: map[string]string{}, hidden: map[string]bool{}}
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
				if err := bounded(v); err != nil {
					return cty.NilVal, err
				}
				e.conceal(v)
				return cty.StringVal(v).Mark(marks.Environment), nil
			}
			if len(args) == 2 {
				return args[1], nil
			}
			return cty.NilVal, fmt.Errorf("the environment variable %s is not set; set it, or give a default: env(%q, \"…\")",
				name, name)
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
				return cty.StringVal(s).Mark(marks.Environment), nil
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
			if err := bounded(s); err != nil {
				return cty.NilVal, err
			}
			e.conceal(s)
			return cty.StringVal(s).Mark(marks.Environment), nil
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
			return args[0].Mark(marks.Secret), nil
		},
	})
}

// conceal keeps a value out of diagnostics. Very short ones would take
// harmless letters with them and are no secrets.
func (e *environment) conceal(s string) {
	if !e.sealed && len(s) >= 4 && !e.hidden[s] {
		e.hidden[s] = true
		e.hide = append(e.hide, s)
	}
}

// scrub takes concealed values out of a message.
func (e *environment) scrub(s string) string {
	for _, h := range e.hide {
		s = strings.ReplaceAll(s, h, quote.Hidden)
	}
	return s
}

// bounded refuses text that would be a number of more digits than memory holds, were
// it taken for one.
func bounded(s string) error {
	if limits.HugeNumber(s) {
		return errors.New("its value is a number beyond all bounds")
	}
	return nil
}

// clean takes secrets out of diagnostics: from their text, and the values of
// variables that the library would print with them.
func (e *environment) clean(diags hcl.Diagnostics) hcl.Diagnostics {
	for _, d := range diags {
		explainDollar(d)
		d.Summary, d.Detail = e.scrub(d.Summary), e.scrub(d.Detail)
		d.Expression, d.EvalContext = nil, nil
	}
	return diags
}

// explainDollar adds how a literal ${ is written to errors that come of one.
func explainDollar(d *hcl.Diagnostic) {
	text := strings.ToLower(d.Summary + " " + d.Detail)
	if strings.Contains(text, "template") || strings.Contains(text, "interpolation") ||
		strings.Contains(text, "unclosed") || strings.Contains(text, "unterminated") {
		if !strings.Contains(d.Detail, "$${") {
			d.Detail = strings.TrimSpace(d.Detail + " A literal ${ is written $${, and %{ is written %%{.")
		}
	}
}

// literalSecret reports whether a secret is written into a file, rather than looked up.
func literalSecret(f *hcl.File) bool {
	for _, text := range quote.Literals(f) {
		if !envName.MatchString(text) && !strings.Contains(text, "://") && !strings.HasPrefix(text, "/") &&
			!strings.Contains(text, "secret(") {
			return true
		}
	}
	return false
}

// envName is what env() is called with.
var envName = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)
