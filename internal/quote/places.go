// Package quote shows parts of configuration files to people, without the secrets that
// stand in them.
package quote

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Secrets are hidden by where they stand, not by what they look like: everything
// within secret(…), the values of attributes that hold credentials, and what locals
// and variables give to either. Tokens are looked at, not the syntax tree, since a
// file that does not parse is quoted too.

// secretNames are the attributes whose values are secrets.
var secretNames = []string{
	"access_key", "secret_key", "session_token", "url", "password", "passphrase", "token", "secret", "headers",
	"authorization", "api_key", "private_key", "routing_key", "fail_url",
}

// Hidden stands where a secret would.
const Hidden = "(secret)"

// region is bytes of a file that are not shown.
type region struct{ from, to int }

// hiding is what Hide notes in File.Nav: where the file's secrets stand.
type hiding struct {
	regions  []region
	literals []string // what stands there
}

// hidingOf returns where secrets stand in a file that Hide has looked at.
func hidingOf(f *hcl.File) hiding {
	if h, ok := f.Nav.(hiding); ok {
		return h
	}
	return hiding{regions: []region{{0, len(f.Bytes)}}} // not looked at: nothing of it is shown
}

// Hide looks for the secrets of a file and notes in its Nav where they stand. tokens are
// those of native syntax, nil in JSON.
func Hide(f *hcl.File, name string, tokens hclsyntax.Tokens) { f.Nav = hide(name, f.Bytes, tokens) }

// Literals returns the texts that stand where secrets do in a file that Hide has looked
// at: wherever else they turn up they are hidden too.
func Literals(f *hcl.File) []string { return hidingOf(f).literals }

// Place returns the text of a place in a file without the secrets in it; ok is false
// where the file has no such place.
func Place(f *hcl.File, r hcl.Range) (text string, ok bool) {
	if f == nil || !r.CanSliceBytes(f.Bytes) {
		return "", false
	}
	return redactRange(f.Bytes, hidingOf(f).regions, r.Start.Byte, r.End.Byte), true
}

// Quotable returns a file that Hide has not looked at, for Diagnostics to quote.
func Quotable(name string, data []byte) *hcl.File {
	var tokens hclsyntax.Tokens
	if !strings.HasSuffix(name, ".json") {
		tokens, _ = hclsyntax.LexConfig(data, name, hcl.InitialPos)
	}
	return &hcl.File{Bytes: data, Nav: hide(name, data, tokens)}
}

// hide looks for the secrets of a file. tokens are those of native syntax, nil in JSON.
func hide(name string, data []byte, tokens hclsyntax.Tokens) hiding {
	var h hiding
	if strings.HasSuffix(name, ".json") {
		h.regions = jsonRegions(data)
	} else {
		h.regions = nativeRegions(tokens, data)
	}
	h.literals = literals(data, tokens, h.regions)
	return h
}

// nativeRegions looks at the tokens of a file in native syntax.
func nativeRegions(tokens hclsyntax.Tokens, data []byte) (regions []region) {
	tokens = slices.DeleteFunc(slices.Clone(tokens), func(t hclsyntax.Token) bool {
		return t.Type == hclsyntax.TokenComment && !bytes.HasSuffix(t.Bytes, []byte("\n"))
	})
	n := nest(tokens)
	assigned := map[string][]region{} // of locals' and variables' values, by name
	used := map[string]bool{}         // names that stand in a region
	variable := ""
	hide := func(from, end int) {
		if from < end {
			regions = append(regions, between(tokens, from, end, data))
			note(used, tokens[from:end])
		}
	}
	for i := 0; i < len(tokens); i++ {
		if tokens[i].Type != hclsyntax.TokenIdent {
			continue
		}
		word := string(tokens[i].Bytes)
		switch next := typeAt(tokens, i+1); {
		case word == "secret" && next == hclsyntax.TokenOParen:
			hide(i+2, n.closes[i+1])
			i = max(i, n.closes[i+1]-1) // what is within is hidden as a whole
		case word == "variable" && next == hclsyntax.TokenOQuote && i+2 < len(tokens):
			variable = string(tokens[i+2].Bytes)
		case (next == hclsyntax.TokenEqual || next == hclsyntax.TokenColon) && i+2 < len(tokens):
			end := n.ends[i+2]
			of := word
			if word == "default" {
				of = variable
			}
			assigned[of] = append(assigned[of], between(tokens, i+2, end, data))
			if slices.Contains(secretNames, word) && !looksUp(tokens[i+2:end]) {
				hide(i+2, end)
				i = max(i, end-1)
			}
		}
	}
	return merge(append(regions, given(assigned, used, data)...))
}

// given returns the values of the locals and variables that secrets are made of,
// however many lie between.
func given(assigned map[string][]region, used map[string]bool, data []byte) (regions []region) {
	done := map[string]bool{}
	for len(done) < len(used) {
		for name := range maps.Clone(used) {
			if done[name] {
				continue
			}
			done[name] = true
			for _, r := range assigned[name] {
				regions = append(regions, r)
				inner, _ := hclsyntax.LexExpression(data[r.from:r.to], "", hcl.InitialPos)
				note(used, inner)
			}
		}
	}
	return regions
}

// merge sorts regions and joins those that overlap.
func merge(regions []region) (merged []region) {
	slices.SortFunc(regions, func(a, b region) int { return a.from - b.from })
	for _, r := range regions {
		switch last := len(merged) - 1; {
		case r.from == r.to:
		case last >= 0 && r.from <= merged[last].to:
			merged[last].to = max(merged[last].to, r.to)
		default:
			merged = append(merged, r)
		}
	}
	return merged
}

// inRegions reports whether a byte lies in one of the merged regions.
func inRegions(regions []region, at int) bool {
	i := sort.Search(len(regions), func(i int) bool { return regions[i].to > at })
	return i < len(regions) && regions[i].from <= at
}

// note adds the names that tokens refer to as local.NAME or var.NAME.
func note(used map[string]bool, tokens hclsyntax.Tokens) {
	for i, t := range tokens {
		root := string(t.Bytes)
		if t.Type == hclsyntax.TokenIdent && root == "each" {
			used["for_each"] = true
		}
		if t.Type == hclsyntax.TokenIdent && (root == "local" || root == "var") && i+2 < len(tokens) {
			used[string(tokens[i+2].Bytes)] = true
			if i+3 < len(tokens) { // local["name"]
				used[string(tokens[i+3].Bytes)] = true
			}
		}
	}
}

func typeAt(tokens hclsyntax.Tokens, i int) hclsyntax.TokenType {
	if i >= len(tokens) {
		return hclsyntax.TokenEOF
	}
	return tokens[i].Type
}

// between returns the bytes of the tokens from i up to end.
func between(tokens hclsyntax.Tokens, i, end int, data []byte) region {
	if i >= len(tokens) {
		return region{len(data), len(data)}
	}
	to := len(data)
	if end < len(tokens) {
		to = tokens[end].Range.Start.Byte
	}
	return region{tokens[i].Range.Start.Byte, max(to, tokens[i].Range.Start.Byte)}
}

var opens = map[hclsyntax.TokenType]bool{
	hclsyntax.TokenOParen: true, hclsyntax.TokenOBrack: true, hclsyntax.TokenOBrace: true, hclsyntax.TokenOQuote: true,
	hclsyntax.TokenOHeredoc: true, hclsyntax.TokenTemplateInterp: true, hclsyntax.TokenTemplateControl: true,
}

var closes = map[hclsyntax.TokenType]bool{
	hclsyntax.TokenCParen: true, hclsyntax.TokenCBrack: true, hclsyntax.TokenCBrace: true, hclsyntax.TokenCQuote: true,
	hclsyntax.TokenCHeredoc: true, hclsyntax.TokenTemplateSeqEnd: true,
}

// nesting says for each token where a value that begins with it ends, and for each
// opening bracket where it is closed: at the end of the file if it is not.
type nesting struct{ ends, closes []int }

// nest reads the tokens once, from the end.
func nest(tokens hclsyntax.Tokens) nesting {
	n := nesting{ends: make([]int, len(tokens)), closes: make([]int, len(tokens))}
	type level struct{ closedBy, end int }
	levels := []level{{len(tokens), len(tokens)}}
	for i := len(tokens) - 1; i >= 0; i-- {
		top := &levels[len(levels)-1]
		switch t := tokens[i].Type; {
		case closes[t]:
			n.ends[i] = i
			levels = append(levels, level{i, i})
			continue
		case opens[t]:
			n.closes[i] = top.closedBy
			if len(levels) > 1 {
				levels = levels[:len(levels)-1]
			} else {
				levels[0].end = len(tokens)
			}
		case t == hclsyntax.TokenNewline || t == hclsyntax.TokenComma:
			top.end = i
		}
		n.ends[i] = levels[len(levels)-1].end
	}
	return n
}

// looksUp reports whether a value is a mere env("NAME") or file("PATH"), which hides
// nothing.
func looksUp(value hclsyntax.Tokens) bool {
	return len(value) == 6 && (string(value[0].Bytes) == "env" || string(value[0].Bytes) == "file") &&
		value[1].Type == hclsyntax.TokenOParen && value[5].Type == hclsyntax.TokenCParen
}

// jsonRegions looks at the strings of a JSON file: the values below a secret's name,
// and every one in which secret( stands.
func jsonRegions(data []byte) (regions []region) {
	named := secretNames
	for again := true; again; {
		regions, again = regionsBelow(data, named), false
		for _, r := range regions {
			for _, m := range referred.FindAllSubmatch(data[r.from:r.to], -1) {
				name := string(m[1])
				if name == "" {
					name = "for_each"
				}
				if !slices.Contains(named, name) {
					named, again = append(slices.Clone(named), name), true
				}
			}
		}
	}
	return regions
}

// referred is what a secret is made of: local.NAME, var.NAME or what an instance was given.
var referred = regexp.MustCompile(`\b(?:(?:local|var)\.([A-Za-z0-9_-]+)|each\.value)`)

// regionsBelow returns the strings below keys of some names, and every one in which
// secret( stands.
func regionsBelow(data []byte, names []string) (regions []region) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	type level struct {
		object, key, hidden bool
	}
	levels := []level{{}}
	for {
		from := int(d.InputOffset())
		token, err := d.Token()
		if err != nil {
			return merge(regions)
		}
		top := &levels[len(levels)-1]
		s, text := token.(string)
		switch {
		case token == json.Delim('{') || token == json.Delim('['):
			levels = append(levels, level{object: token == json.Delim('{'), key: token == json.Delim('{'), hidden: top.hidden})
			continue
		case token == json.Delim('}') || token == json.Delim(']'):
			levels = levels[:max(1, len(levels)-1)]
		case top.object && top.key:
			top.key, top.hidden = false, levels[max(0, len(levels)-2)].hidden || slices.Contains(names, s)
			continue
		case text && (top.hidden || strings.Contains(s, "secret(")):
			at := from + bytes.IndexByte(data[from:], '"')
			regions = append(regions, region{at + 1, int(d.InputOffset()) - 1})
		}
		if top := &levels[len(levels)-1]; top.object {
			top.key = true
			top.hidden = levels[max(0, len(levels)-2)].hidden
		}
	}
}

// userInfo is a name and password in an address.
var userInfo = regexp.MustCompile(`(://)[^/@\s"']+@`)

// Redact returns a file's text with what is secret in it replaced.
func Redact(name string, data []byte) string {
	return redactRange(data, hidingOf(Quotable(name, data)).regions, 0, len(data))
}

// redactRange returns a part of a file with what is secret in it replaced.
func redactRange(data []byte, regions []region, from, to int) string {
	var b strings.Builder
	at := from
	for _, r := range regions[sort.Search(len(regions), func(i int) bool { return regions[i].to > from }):] {
		if r.from >= to {
			break
		}
		if r.from > at {
			b.Write(data[at:r.from])
		}
		b.WriteString(Hidden)
		at = min(r.to, to)
	}
	if at < to {
		b.Write(data[at:to])
	}
	return userInfo.ReplaceAllString(b.String(), "${1}…@")
}

// maxLiterals bounds the texts of one file that are looked for elsewhere.
const maxLiterals = 10_000

// literals returns the texts that stand in the secret regions of a file: wherever
// else they turn up, as in an error of the parser, they are hidden too.
func literals(data []byte, tokens hclsyntax.Tokens, regions []region) (texts []string) {
	for _, r := range regions {
		if text := strings.TrimSpace(string(data[r.from:r.to])); !strings.ContainsAny(text, " \t\n\"'({[") {
			texts = append(texts, text)
		}
	}
	for _, t := range tokens {
		if (t.Type == hclsyntax.TokenQuotedLit || t.Type == hclsyntax.TokenStringLit) &&
			inRegions(regions, t.Range.Start.Byte) {
			texts = append(texts, strings.TrimSpace(string(t.Bytes)))
		}
	}
	return texts[:min(len(texts), maxLiterals)]
}
