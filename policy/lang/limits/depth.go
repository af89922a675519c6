package limits

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Bounds of an expression's syntax. The parser and every walk over its tree
// recurse, and an overflowing stack ends the process: no recover helps.
const (
	maxNesting   = 200
	maxOperators = 1000
)

// CheckDepth refuses tokens that would parse into too deep a tree: brackets
// within brackets, and long chains such as 1+1+1+…, a[0][0][0]… or nested
// template directives, which nest without a bracket.
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
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			top.count++
			levels = append(levels, level{open: t.Type})
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			if len(levels) > 1 {
				levels = levels[:len(levels)-1]
			}
		case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit, hclsyntax.TokenComment:
		default:
			top.count++
		}
		if len(levels) > maxNesting || levels[len(levels)-1].count > maxOperators {
			return hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Nested too deep", Subject: t.Range.Ptr(),
				Detail: fmt.Sprintf("At most %d brackets within each other and %d operators in one expression are allowed.", maxNesting, maxOperators)}}
		}
	}
	return nil
}
