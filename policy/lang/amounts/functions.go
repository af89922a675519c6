// Package amounts parses and formats amounts such as "64MB" and "1h30m", and has the functions
// of the expression language that need nothing but their arguments.
package amounts

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
)

// Functions returns the functions that need neither a database nor the environment.
func Functions() map[string]function.Function {
	return map[string]function.Function{
		"bytes":          parser("text such as \"64MB\" or a number of bytes", ParseBytes),
		"duration":       parser("text such as \"90s\" or \"7d\", or a number of seconds", parseSeconds),
		"percent":        parser("text such as \"15%\" or a number", parsePercent),
		"human_bytes":    human(HumanBytes),
		"human_duration": human(HumanSeconds),
		"min":            stdlib.MinFunc,
		"max":            stdlib.MaxFunc,
		"abs":            stdlib.AbsoluteFunc,
		"coalesce":       coalesce(),
		"try":            tryfunc.TryFunc,
		"format":         format(),
		"join":           stdlib.JoinFunc,
		"regex":          stdlib.RegexFunc,
		"path_element":   pathElement(),
		"toset":          stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType)),
		"jsonencode":     stdlib.JSONEncodeFunc,
	}
}

// parser returns a function that takes text or a number and returns a number.
func parser(want string, parse func(string) (float64, error)) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType}},
		Type:   function.StaticReturnType(cty.Number),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if enormous(args[0]) {
				return cty.NilVal, fmt.Errorf("the number is beyond all bounds: %s is needed", want)
			}
			s, err := convert.Convert(args[0], cty.String)
			if err != nil {
				return cty.NilVal, fmt.Errorf("%s is needed", want)
			}
			n, err := parse(s.AsString())
			if err != nil {
				return cty.NilVal, fmt.Errorf("%w: %s is needed", err, want)
			}
			return cty.NumberFloatVal(n), nil
		},
	})
}

// ParseBytes parses an amount of bytes, as "64MB" or "1MiB".
func ParseBytes(s string) (float64, error) {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not an amount of bytes", s)
	}
	return float64(n), nil
}

func parseSeconds(s string) (float64, error) {
	d, err := ParseDuration(s)
	return d.Seconds(), err
}

var dayParts = regexp.MustCompile(`^(\d+(?:\.\d+)?)(w|d)`)

// ParseDuration parses a duration as time.ParseDuration does, with days (d)
// and weeks (w) before the rest, or a bare number of seconds.
func ParseDuration(s string) (time.Duration, error) {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		s = strconv.FormatFloat(n, 'f', -1, 64) + "s"
	}
	rest, days := s, 0.0
	for m := dayParts.FindStringSubmatch(rest); m != nil; m = dayParts.FindStringSubmatch(rest) {
		n, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
		if m[2] == "w" {
			n *= 7
		}
		days, rest = days+n, rest[len(m[0]):]
	}
	var d time.Duration
	if rest != "" || days == 0 {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, fmt.Errorf("%q is not a duration", s)
		}
	}
	total := days*24*float64(time.Hour) + float64(d)
	if math.Abs(total) >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too long a duration", s)
	}
	return time.Duration(days*24*float64(time.Hour)) + d, nil
}

// DurationValue converts text or a number of seconds to a duration.
func DurationValue(v cty.Value) (time.Duration, error) {
	v, _ = v.Unmark()
	if enormous(v) {
		return 0, errors.New("the number is beyond all bounds")
	}
	s, err := convert.Convert(v, cty.String)
	if err != nil || !s.IsKnown() || s.IsNull() {
		return 0, errors.New("text such as \"30s\" or a number of seconds is needed")
	}
	return ParseDuration(s.AsString())
}

// enormous reports whether a number is so large, or so near to zero, that writing out its digits
// would take more time and memory than there is.
func enormous(v cty.Value) bool {
	if v.Type() != cty.Number || !v.IsKnown() || v.IsNull() {
		return false
	}
	exponent := v.AsBigFloat().MantExp(nil)
	return exponent > 4096 || exponent < -4096
}

func parsePercent(s string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(s, "%")), 64)
	if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
		return 0, fmt.Errorf("%q is not a percentage", s)
	}
	return n / 100, nil
}

func human(render func(float64) string) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "number", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			n, _ := args[0].AsBigFloat().Float64()
			return cty.StringVal(render(n)), nil
		},
	})
}

// HumanBytes formats an amount of bytes, as "64 MB".
func HumanBytes(n float64) string {
	sign := ""
	if n < 0 {
		sign, n = "-", -n
	}
	if n >= math.MaxInt64 {
		return sign + strconv.FormatFloat(n, 'g', 4, 64) + " B"
	}
	return sign + humanize.Bytes(uint64(n))
}

// HumanSeconds formats a duration for people, as "1h30m".
func HumanSeconds(n float64) string {
	if math.Abs(n) >= math.MaxInt64/1e9 {
		return strconv.FormatFloat(n, 'g', 4, 64) + " s"
	}
	d := time.Duration(n * float64(time.Second))
	switch a := d.Abs(); {
	case a >= 48*time.Hour:
		return strconv.FormatFloat(d.Hours()/24, 'f', 1, 64) + "d"
	case a >= time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(a.Minutes())%60)
	case a >= time.Minute:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(a.Seconds())%60)
	case a >= time.Second:
		return d.Round(10 * time.Millisecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// coalesce returns its first argument that is known and not null. It is the only function with
// which a policy can replace an unknown value.
func coalesce() function.Function {
	p := function.Parameter{Name: "values", Type: cty.DynamicPseudoType, AllowNull: true, AllowUnknown: true,
		AllowDynamicType: true}
	return function.New(&function.Spec{
		VarParam: &p,
		Type: func(args []cty.Value) (cty.Type, error) {
			types := make([]cty.Type, len(args))
			for i, a := range args {
				types[i] = a.Type()
			}
			t, _ := convert.UnifyUnsafe(types)
			if t == cty.NilType {
				return t, errors.New("all arguments must have one type")
			}
			return t, nil
		},
		Impl: func(args []cty.Value, t cty.Type) (cty.Value, error) {
			for _, a := range args {
				if a.IsKnown() && !a.IsNull() {
					return convert.Convert(a, t)
				}
			}
			return cty.UnknownVal(t), nil
		},
	})
}

var wideFormat = regexp.MustCompile(`%[^%a-zA-Z]*\d{4}`)

// format is the standard format function, but refuses widths that would fill memory.
func format() function.Function {
	return function.New(&function.Spec{
		Params:   []function.Parameter{{Name: "format", Type: cty.String}},
		VarParam: &function.Parameter{Name: "args", Type: cty.DynamicPseudoType, AllowNull: true},
		Type:     function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			if f := args[0].AsString(); wideFormat.MatchString(f) || strings.Contains(f, "*") {
				return cty.NilVal, errors.New("widths above 999 are refused")
			}
			return stdlib.FormatFunc.Call(args)
		},
	})
}

// pathElement returns one element of a path, counted from 0 or, negative,
// from the end: path_element("/srv/tenants/acme/data.db", -2) is "acme".
func pathElement() function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}, {Name: "index", Type: cty.Number}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			elements := strings.FieldsFunc(args[0].AsString(), func(r rune) bool { return r == '/' })
			i, acc := args[1].AsBigFloat().Int64()
			if acc != big.Exact {
				return cty.NilVal, errors.New("the index must be a whole number")
			}
			n := i
			if n < 0 {
				n += int64(len(elements))
			}
			if n < 0 || n >= int64(len(elements)) {
				return cty.NilVal, fmt.Errorf("there is no element %d in a path of %d", i, len(elements))
			}
			return cty.StringVal(elements[n]), nil
		},
	})
}
