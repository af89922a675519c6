// Package schematest writes the reference of sqlwatch's JSON output: tables of the fields of
// types as show.Marshal encodes them, with the comment beside each field in the source. Tests
// compare documents with it.
package schematest

import (
	"cmp"
	"encoding"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Reference describes the types that a document lists.
type Reference struct {
	Sections  map[string]reflect.Type // by section of the document
	Held      map[string]reflect.Type // the types of fields of an interface type, by path
	Elsewhere map[string]string       // the section that lists the fields of a field or type, by path or type
	Sources   []string                // directories of the packages of all those types
}

// Field is a field of a JSON answer.
type Field struct{ Path, Kind, Meaning string }

// Update returns a document with the table of each section recreated, between
// "<!-- begin: NAME -->" and "<!-- end: NAME -->", and the fields whose names lack a unit.
func (r Reference) Update(document string) (updated string, unitless []string, err error) {
	said, err := comments(r.Sources)
	if err != nil {
		return "", nil, err
	}
	for _, section := range slices.Sorted(maps.Keys(r.Sections)) {
		begin, end := "<!-- begin: "+section+" -->\n", "<!-- end: "+section+" -->\n"
		head, rest, ok := strings.Cut(document, begin)
		_, tail, closed := strings.Cut(rest, end)
		if !ok || !closed {
			return "", nil, fmt.Errorf("the document has no section %s", section)
		}
		var table strings.Builder
		table.WriteString("| field | type | meaning |\n|---|---|---|\n")
		for _, f := range r.fields(r.Sections[section], "", said) {
			fmt.Fprintf(&table, "| `%s` | %s | %s |\n", f.Path, f.Kind, strings.ReplaceAll(f.Meaning, "|", `\|`))
			last := f.Path[strings.LastIndexByte(f.Path, '.')+1:]
			if strings.Contains(last, "_ns") || f.Kind == "number" && (strings.HasSuffix(last, "size") ||
				strings.HasSuffix(last, "_duration") || strings.HasSuffix(last, "age")) {
				unitless = append(unitless, section+": "+f.Path)
			}
		}
		document = head + begin + table.String() + end + tail
	}
	return document, unitless, nil
}

// comments returns the comments beside the fields of structs, by type and field.
func comments(dirs []string) (map[string]string, error) {
	all := map[string]string{}
	for _, dir := range dirs {
		paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				ts, ok := n.(*ast.TypeSpec)
				if !ok {
					return true
				}
				if st, ok := ts.Type.(*ast.StructType); ok {
					for _, field := range st.Fields.List {
						text := cmp.Or(strings.TrimSpace(field.Comment.Text()), strings.TrimSpace(field.Doc.Text()))
						for _, name := range field.Names {
							all[file.Name.Name+"."+ts.Name.Name+"."+name.Name] = strings.Join(strings.Fields(text), " ")
						}
					}
				}
				return true
			})
		}
	}
	return all, nil
}

// fields lists the fields of a type. For a list it lists those of an element, with "[]" after the
// path.
func (r Reference) fields(typ reflect.Type, path string, said map[string]string, within ...reflect.Type) []Field {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		if typ.Kind() == reflect.Slice {
			path += "[]"
		}
		typ = typ.Elem()
	}
	var all []Field
	hidden := map[string]bool{} // by a field of the same name at a lower depth
	for i := range typ.NumField() {
		if name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ","); !typ.Field(i).Anonymous && name != "" {
			hidden[strings.TrimPrefix(path+"."+name, ".")] = true
		}
	}
	for i := range typ.NumField() {
		f := typ.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || !f.IsExported() {
			continue
		}
		if f.Anonymous && name == "" {
			all = append(all, slices.DeleteFunc(r.fields(f.Type, path, said, within...), func(f Field) bool {
				for shadow := range hidden {
					if f.Path == shadow || strings.HasPrefix(f.Path, shadow+".") || strings.HasPrefix(f.Path, shadow+"[") {
						return true
					}
				}
				return false
			})...)
			continue
		}
		name = cmp.Or(name, f.Name)
		if f.Type == reflect.TypeFor[time.Duration]() && !strings.HasSuffix(name, "_seconds") {
			name += "_seconds"
		}
		at := strings.TrimPrefix(path+"."+name, ".")
		meaning := said[typ.String()+"."+f.Name]
		if strings.Contains(options, "omit") || f.Type == reflect.TypeFor[time.Time]() {
			meaning = strings.TrimSpace(meaning + " *May be absent.*")
		}
		all = append(all, r.field(f.Type, typ, at, meaning, said, within)...)
	}
	return all
}

// field lists one field of a type, and the fields below it.
func (r Reference) field(
	of, owner reflect.Type, at, meaning string, said map[string]string, within []reflect.Type,
) []Field {
	many := ""
	if known := r.Held[at]; known != nil {
		of = known
	}
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		if of.Kind() == reflect.Slice {
			many += "[]"
		}
		of = of.Elem()
	}
	kind := kindOf(of)
	if section := cmp.Or(r.Elsewhere[at], r.Elsewhere[of.String()]); section != "" {
		return []Field{{at + many, "object", "See [" + section + "](#" + strings.ToLower(section) + ")."}}
	}
	all := []Field{{at, kind, meaning}}
	if many != "" {
		all[0].Kind = "list of " + kind
	}
	if kind == "object" && of.Kind() == reflect.Struct && of != owner && !slices.Contains(within, of) {
		all = append(all, r.fields(of, at+many, said, append(within, owner)...)...)
	}
	return all
}

func kindOf(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[time.Duration]():
		return "number"
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()), t.Kind() == reflect.String:
		return "string"
	case t.Implements(reflect.TypeFor[json.Marshaler]()):
		return "value"
	case t.Kind() == reflect.Bool:
		return "boolean"
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map:
		return "object"
	case t.Kind() == reflect.Interface:
		return "value"
	}
	return "number"
}
