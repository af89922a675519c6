package importer

import (
	"os"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// value is text of the YAML file in which variables are still marked, so that
// they can become env() and no secret is copied out of the environment.
type value struct{ text string }

func (v value) empty() bool { return v.text == "" }

// A variable stands in the text as its name between two characters that no
// configuration holds.
const opening, closing = "\uE000", "\uE001"

// expansion is os.Expand as Litestream applies it to the whole file, put off
// until it is known what a variable is for.
type expansion struct {
	getenv func(string) (string, bool)
	active bool
}

func newExpansion(o Options) *expansion { return &expansion{getenv: o.Getenv, active: o.ExpandEnv} }

// mark puts marks in place of variables. What is no name of one, such as $1 or
// $$, is nothing, as in Litestream.
func (e *expansion) mark(text string) string {
	text = strings.NewReplacer(opening, "", closing, "").Replace(text)
	if !e.active {
		return text
	}
	return os.Expand(text, func(key string) string {
		switch {
		case key == "PID":
			return strconv.Itoa(os.Getpid())
		case !isName(key):
			v, _ := e.getenv(key)
			return v
		}
		return opening + key + closing
	})
}

func isName(key string) bool {
	for i, r := range key {
		if r != '_' && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return key != ""
}

// part is literal text or the name of a variable.
type part struct {
	text     string
	variable bool
}

func parts(text string) []part {
	var out []part
	for text != "" {
		before, rest, found := strings.Cut(text, opening)
		if before != "" {
			out = append(out, part{text: before})
		}
		if !found {
			break
		}
		name, after, _ := strings.Cut(rest, closing)
		out = append(out, part{text: name, variable: true})
		text = after
	}
	return out
}

// plain expands the variables now, unset ones to nothing.
func (e *expansion) plain(text string) string {
	var b strings.Builder
	for _, p := range parts(text) {
		if !p.variable {
			b.WriteString(p.text)
		} else if v, ok := e.getenv(p.text); ok {
			b.WriteString(v)
		}
	}
	return b.String()
}

// expression writes a value as HCL. A variable that is not set now gets the
// empty default that Litestream would have used.
func (e *expansion) expression(v value) string {
	all := parts(v.text)
	if len(all) == 1 && all[0].variable {
		return e.call(all[0].text)
	}
	var b strings.Builder
	for _, p := range all {
		if p.variable {
			b.WriteString("${" + e.call(p.text) + "}")
			continue
		}
		quoted := string(hclwrite.TokensForValue(cty.StringVal(p.text)).Bytes())
		b.WriteString(strings.TrimSuffix(strings.TrimPrefix(quoted, `"`), `"`))
	}
	return `"` + b.String() + `"`
}

func (e *expansion) call(name string) string {
	if _, set := e.getenv(name); set {
		return `env("` + name + `")`
	}
	return `env("` + name + `", "")`
}

// unset returns the variables of a value that are not set now.
func (e *expansion) unset(v value) (names []string) {
	for _, p := range parts(v.text) {
		if _, set := e.getenv(p.text); p.variable && !set {
			names = append(names, p.text)
		}
	}
	return names
}
