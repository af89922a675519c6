package show

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Marshal encodes v as every answer of sqlwatch to a machine is: as encoding/json
// does, but that a time.Duration is a number of seconds and its name says so
// (stall becomes stall_seconds), a zero time is absent, a list or map is never
// null, and a number that is none is null.
func Marshal(v any) ([]byte, error) { return appendJSON(nil, reflect.ValueOf(v)) }

var (
	durationType  = reflect.TypeFor[time.Duration]()
	timeType      = reflect.TypeFor[time.Time]()
	marshalerType = reflect.TypeFor[json.Marshaler]()
	textType      = reflect.TypeFor[encoding.TextMarshaler]()
)

func appendJSON(b []byte, v reflect.Value) ([]byte, error) {
	switch {
	case !v.IsValid(), (v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface) && v.IsNil():
		return append(b, "null"...), nil
	case v.Kind() == reflect.Interface:
		return appendJSON(b, v.Elem())
	case v.Type() == durationType:
		return appendStandard(b, v.Interface().(time.Duration).Seconds())
	case v.Type().Implements(marshalerType), v.Type().Implements(textType):
		return appendStandard(b, v.Interface())
	}
	switch v.Kind() {
	case reflect.Pointer:
		return appendJSON(b, v.Elem())
	case reflect.Struct:
		b, _, err := appendFields(append(b, '{'), v, true, nil)
		return append(b, '}'), err
	case reflect.Map:
		return appendMap(b, v)
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return appendStandard(b, v.Interface())
		}
		return appendList(b, v)
	case reflect.Float32, reflect.Float64:
		if f := v.Float(); math.IsNaN(f) || math.IsInf(f, 0) {
			return append(b, "null"...), nil
		}
	}
	return appendStandard(b, v.Interface())
}

func appendStandard(b []byte, v any) ([]byte, error) {
	text, err := json.Marshal(v)
	return append(b, text...), err
}

func appendList(b []byte, v reflect.Value) ([]byte, error) {
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendJSON(b, v.Index(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendMap(b []byte, v reflect.Value) ([]byte, error) {
	type entry struct {
		name  string
		value reflect.Value
	}
	var entries []entry
	for key, value := range v.Seq2() {
		name := fmt.Sprint(key)
		if text, ok := key.Interface().(encoding.TextMarshaler); ok {
			said, err := text.MarshalText()
			if err != nil {
				return b, err
			}
			name = string(said)
		}
		entries = append(entries, entry{name, value})
	}
	slices.SortFunc(entries, func(x, y entry) int { return cmp.Compare(x.name, y.name) })
	b = append(b, '{')
	for i, e := range entries {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendStandard(b, e.name); err != nil {
			return b, err
		}
		if b, err = appendJSON(append(b, ':'), e.value); err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// nameOf returns the name under which a field is encoded, and its tag's options.
func nameOf(field reflect.StructField) (name, options string) {
	name, options, _ = strings.Cut(field.Tag.Get("json"), ",")
	if name != "-" && !field.Anonymous {
		name = cmp.Or(name, field.Name)
	}
	if name != "-" && field.Type == durationType && !strings.HasSuffix(name, "_seconds") {
		name = strings.TrimSuffix(name, "_ns") + "_seconds"
	}
	return name, options
}

// appendFields encodes the fields of a struct, those of embedded ones among them
// where no outer field has the name.
func appendFields(b []byte, v reflect.Value, first bool, taken []string) ([]byte, bool, error) {
	outer := taken
	for i := range v.NumField() {
		if name, _ := nameOf(v.Type().Field(i)); name != "" {
			taken = append(taken[:len(taken):len(taken)], name)
		}
	}
	for i := range v.NumField() {
		field, value := v.Type().Field(i), v.Field(i)
		name, options := nameOf(field)
		var err error
		switch {
		case name == "-":
			continue
		case field.Anonymous && name == "":
			for value.Kind() == reflect.Pointer && !value.IsNil() {
				value = value.Elem()
			}
			if value.Kind() == reflect.Struct {
				if b, first, err = appendFields(b, value, first, taken); err != nil {
					return b, first, err
				}
			}
			continue
		case !field.IsExported(), slices.Contains(outer, name), absent(value, options):
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if b, err = appendStandard(b, name); err != nil {
			return b, first, err
		}
		if b, err = appendJSON(append(b, ':'), value); err != nil {
			return b, first, fmt.Errorf("%s: %w", name, err)
		}
	}
	return b, first, nil
}

// absent reports whether a field is left out.
func absent(v reflect.Value, options string) bool {
	if v.Type() == timeType && v.Interface().(time.Time).IsZero() {
		return true
	}
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "omitzero":
			if v.IsZero() {
				return true
			}
		case "omitempty":
			switch v.Kind() {
			case reflect.Slice, reflect.Map, reflect.String, reflect.Array:
				if v.Len() == 0 {
					return true
				}
			case reflect.Struct:
			default:
				if v.IsZero() {
					return true
				}
			}
		}
	}
	return false
}

// indented is Marshal, for people.
func indented(v any) ([]byte, error) {
	text, err := Marshal(v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
