// Package marks marks values of expressions that must not be shown.
package marks

import "github.com/zclconf/go-cty/cty"

// mark says why a value is not shown.
type mark string

// The marks. A value that came through secret() is shown nowhere; a value from the environment
// or a file is left out when expressions are explained.
const (
	Secret      = mark("secret")
	Environment = mark("environment")
)

// IsSecret reports whether a value, or part of it, came through secret().
func IsSecret(v cty.Value) bool {
	_, found := v.UnmarkDeep()
	_, is := found[Secret]
	return is
}

// Hides reports whether a value must be left out when expressions are explained. Numbers and
// truths from the environment are shown.
func Hides(v cty.Value) bool {
	return IsSecret(v) || v.IsMarked() && v.Type() != cty.Number && v.Type() != cty.Bool
}
