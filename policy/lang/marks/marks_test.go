package marks

import (
	"testing"

	"github.com/zclconf/go-cty/cty"
)

func TestMarks(t *testing.T) {
	t.Parallel()
	text, number := cty.StringVal("x"), cty.NumberIntVal(1)
	within := cty.ObjectVal(map[string]cty.Value{"a": cty.ListVal([]cty.Value{text.Mark(Secret)})})
	for _, test := range []struct {
		name           string
		v              cty.Value
		secret, hidden bool
	}{
		{"plain text", text, false, false},
		{"secret text", text.Mark(Secret), true, true},
		{"secret number", number.Mark(Secret), true, true},
		{"secret within", within, true, true},
		{"text of the environment", text.Mark(Environment), false, true},
		{"number of the environment", number.Mark(Environment), false, false},
		{"truth of the environment", cty.True.Mark(Environment), false, false},
		{"both", text.Mark(Environment).Mark(Secret), true, true},
		{"unknown secret", cty.UnknownVal(cty.String).Mark(Secret), true, true},
		{"null", cty.NullVal(cty.String), false, false},
	} {
		if got := IsSecret(test.v); got != test.secret {
			t.Errorf("%s: secret %v", test.name, got)
		}
		if got := Hides(test.v); got != test.hidden {
			t.Errorf("%s: hidden %v", test.name, got)
		}
	}
}
