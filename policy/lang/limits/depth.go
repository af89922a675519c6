package limits

import (
	"fmt"
	"regexp"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Bounds of an expression's syntax. The parser and every walk over its tree
// recurse, and an overflowing stack ends the process: no recover helps.
const (
	maxNesting   = 200
	maxOperators = 1000
)

var huge = regexp.MustCompile(`^\s*[+-]?[0-9]*\.?[0-9]*[eE][+-]?0*[1-9][0-9]{3,}\s*$|^\s*[+-]?[0-9.]{1000,}`)

// HugeNumber reports whether text, read as a number, would need more time and memory for its
// digits than there is: 1e99999999.
func HugeNumber(s string) bool { return huge.MatchString(s) }

// CheckDepth rejects tokens that would parse into too deep a tree: brackets within
// brackets, long chains such as 1+1+1+… or a[0][0][0]…, and nested template
// directives, which need no bracket.
func CheckDepth(tokens hclsyntax.Tokens) hcl.Diagnostics {
	type level struct {
		open  hclsyntax.TokenType
		count int // operators since the last comma or line end of this level
	}
	levels := []level{{}}
	for _, t := range tokens {
		top := &levels[len(levels)-1]
		switch t.Type {
		case hclsyntax.TokenComma:
			top.count = 0
		case hclsyntax.TokenNewline:
			if top.open == 0 || top.open == hclsyntax.TokenOBrace {
				top.count = 0
			}
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp,
			hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			top.count++
			levels = append(levels, level{open: t.Type})
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			if len(levels) > 1 {
				levels = levels[:len(levels)-1]
			}
		case hclsyntax.TokenNumberLit, hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit:
			if HugeNumber(string(t.Bytes)) {
				return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Number out of range", Subject: t.Range.Ptr(),
					Detail: "A number has at most 3 digits in its exponent and 1,000 in all: more would fill memory when it is " +
						"written out."}}
			}
		case hclsyntax.TokenIdent, hclsyntax.TokenComment:
		default:
			top.count++
		}
		if len(levels) > maxNesting || levels[len(levels)-1].count > maxOperators {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Nested too deep", Subject: t.Range.Ptr(),
				Detail: fmt.Sprintf("At most %d brackets within each other and %d operators in one expression are allowed.",
					maxNesting, maxOperators)}}
		}
	}
	return nil
}
