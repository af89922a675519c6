// Package tuning writes what tune blocks have learned into the configuration's files,
// and nothing else: comments, order and the rest stay as they are.
package tuning

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/sqlwatch/sqlwatch/internal/admin"
	"github.com/sqlwatch/sqlwatch/internal/durable"
	"github.com/sqlwatch/sqlwatch/internal/show"
)

// Value is what one tune block of a policy has come to.
type Value struct {
	Policy    string `json:"policy"`
	Tune      string `json:"tune"`
	Attribute string `json:"attribute"` // where it is written: start, or stall_budget of the checkpoint
	Literal   string `json:"value"`     // as a configuration writes it
}

// Values returns what the tune blocks suggest for the databases. Where two databases
// have led one block to different values, somebody must say which one holds.
func Values(views []admin.Database) ([]Value, error) {
	type key struct{ policy, tune string }
	found, from := map[key]Value{}, map[key]string{}
	for _, v := range views {
		if v.Decision == nil {
			continue
		}
		for _, t := range v.Decision.Tunes {
			if t.Suggested == t.Start { // as it is written
				continue
			}
			k, value := key{t.Policy, t.Name}, Value{t.Policy, t.Name, t.Attribute, t.Literal}
			if before, known := found[k]; known && before != value {
				return nil, fmt.Errorf("tune %s of policy %s has come to %s for %s and to %s for %s: name one database", t.Name,
					t.Policy, before.Literal, from[k], value.Literal, v.Name)
			}
			found[k], from[k] = value, v.Name
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b Value) int {
		return strings.Compare(a.Policy+"\x00"+a.Tune, b.Policy+"\x00"+b.Tune)
	}), nil
}

// Export returns the files that change, by name, with the values written into them.
func Export(files map[string]*hcl.File, values []Value) (map[string][]byte, error) {
	changed := map[string][]byte{}
	written := map[Value]bool{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".json") {
			continue
		}
		file, diags := hclwrite.ParseConfig(files[name].Bytes, name, hcl.InitialPos)
		if diags.HasErrors() {
			return nil, fmt.Errorf("read %s: %w", name, diags)
		}
		for _, v := range values {
			if block := place(file.Body(), v); block != nil {
				if err := set(block.Body(), v); err != nil {
					return nil, err
				}
				written[v] = true
			}
		}
		if text := file.Bytes(); string(text) != string(files[name].Bytes) {
			changed[name] = text
		}
	}
	for _, v := range values {
		if !written[v] {
			return nil, fmt.Errorf("tune %s of policy %s is in no file of HCL's native syntax: write %s = %s by hand", v.Tune,
				v.Policy, v.Attribute, v.Literal)
		}
	}
	return changed, nil
}

// place returns the block that a value stands in, nil where this file has none.
func place(body *hclwrite.Body, v Value) *hclwrite.Block {
	p := body.FirstMatchingBlock("policy", []string{v.Policy})
	if p == nil {
		return nil
	}
	if v.Attribute == "stall_budget" {
		return p.Body().FirstMatchingBlock("checkpoint", nil)
	}
	return p.Body().FirstMatchingBlock("tune", []string{v.Tune})
}

// set writes the value's expression.
func set(body *hclwrite.Body, v Value) error {
	tokens, diags := hclsyntax.LexExpression([]byte(v.Literal), "", hcl.InitialPos)
	if diags.HasErrors() {
		return fmt.Errorf("write %s: %w", v.Literal, diags)
	}
	var raw hclwrite.Tokens
	for _, t := range tokens {
		if t.Type != hclsyntax.TokenEOF {
			raw = append(raw, &hclwrite.Token{Type: t.Type, Bytes: t.Bytes})
		}
	}
	if len(body.Attributes())+len(body.Blocks()) == 0 {
		body.AppendNewline() // it may be on one line
	}
	body.SetAttributeRaw(v.Attribute, raw)
	return nil
}

// Write puts the files in place, or prints them, each after its name.
func Write(w io.Writer, files map[string][]byte, inPlace bool) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text := fmt.Sprintf("# %s\n%s", show.Text(name), files[name])
		if inPlace {
			if err := durable.WriteFile(name, files[name], 0o640); err != nil {
				return err
			}
			text = fmt.Sprintf("wrote %s\n", show.Text(name))
		}
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}
