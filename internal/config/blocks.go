package config

import (
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// parts is the content of a block: attributes and nested blocks, each as its words in the source.
// Spaces, comments and order do not count.
type parts map[string]string

// blocks returns the top-level blocks of a configuration by type and labels, as "policy shrink".
// A JSON file is one block: its text is compared as a whole.
func (c *Config) blocks() map[string]parts {
	all := map[string]parts{}
	for name, f := range c.Files {
		body, native := f.Body.(*hclsyntax.Body)
		if !native {
			if strings.HasSuffix(name, ".json") {
				all["file "+name] = parts{"its text": string(f.Bytes)}
			}
			continue
		}
		for _, b := range body.Blocks {
			key := strings.Join(append([]string{b.Type}, b.Labels...), " ")
			if all[key] == nil {
				all[key] = parts{}
			}
			for name, text := range partsOf(b.Body, f.Bytes) {
				all[key][name] += text // there may be several locals blocks
			}
		}
	}
	return all
}

func partsOf(body *hclsyntax.Body, source []byte) parts {
	p := parts{}
	for name, a := range body.Attributes {
		p[name] = words(a.Expr.Range(), source)
	}
	for _, b := range body.Blocks {
		name := strings.Join(append([]string{b.Type}, b.Labels...), " ")
		p[name] += words(b.Body.Range(), source) + "\n" // the order of steps matters
	}
	return p
}

// words returns a range of a file as its words.
func words(r hcl.Range, source []byte) string {
	if !r.CanSliceBytes(source) {
		return ""
	}
	tokens, _ := hclsyntax.LexExpression(r.SliceBytes(source), r.Filename, r.Start)
	var out []string
	for _, t := range tokens {
		if t.Type != hclsyntax.TokenComment && t.Type != hclsyntax.TokenNewline && t.Type != hclsyntax.TokenEOF {
			out = append(out, string(t.Bytes))
		}
	}
	return strings.Join(out, " ")
}

// differing returns the names of the parts that differ between two blocks.
func differing(a, b parts) (names []string) {
	for name, text := range b {
		if old, there := a[name]; !there || old != text {
			names = append(names, name)
		}
	}
	for name := range a {
		if _, there := b[name]; !there {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
