// Package marks says of values of expressions which are not shown, and to whom.
package marks

import "github.com/zclconf/go-cty/cty"

// mark says why a value is not shown.
type mark string

// The marks. What came through secret() is shown nowhere; what came out of the
// environment or a file is left out where values are explained.
const (
	Secret      = mark("secret")
	Environment = mark("environment")
)

// IsSecret reports whether a value, or one within it, came through secret().
func IsSecret(v cty.Value) bool {
	_, found := v.UnmarkDeep()
	_, is := found[Secret]
	return is
}

// Hides reports whether a value is not shown where values are explained: numbers and
// truths out of the environment are.
func Hides(v cty.Value) bool {
	return IsSecret(v) || v.IsMarked() && v.Type() != cty.Number && v.Type() != cty.Bool
}
