package testbrowser

import (
	_ "embed"
	"fmt"
)

// Node is one element that a screen reader announces.
type Node struct {
	Role, Name string
	Props      map[string]any // expanded, live, focusable …
}

func (n Node) String() string { return fmt.Sprintf("%s %q", n.Role, n.Name) }

// Accessible returns what a screen reader announces of the page, in its order.
func (b *Browser) Accessible() (nodes []Node) {
	b.t.Helper()
	b.Call("Accessibility.enable", nil)
	list, _ := b.Call("Accessibility.getFullAXTree", nil)["nodes"].([]any)
	byID := map[any]map[string]any{}
	var root map[string]any
	for _, v := range list {
		n, _ := v.(map[string]any)
		byID[n["nodeId"]] = n
		if n["parentId"] == nil {
			root = n
		}
	}
	value := func(v any) any {
		m, _ := v.(map[string]any)
		return m["value"]
	}
	var walk func(n map[string]any)
	walk = func(n map[string]any) {
		if n["ignored"] != true {
			one := Node{Props: map[string]any{}}
			one.Role, _ = value(n["role"]).(string)
			one.Name, _ = value(n["name"]).(string)
			props, _ := n["properties"].([]any)
			for _, p := range props {
				if m, ok := p.(map[string]any); ok {
					one.Props[fmt.Sprint(m["name"])] = value(m["value"])
				}
			}
			if one.Role != "InlineTextBox" { // lines of a text that is already there as a whole
				nodes = append(nodes, one)
			}
		}
		children, _ := n["childIds"].([]any)
		for _, c := range children {
			walk(byID[c])
		}
	}
	walk(root)
	return nodes
}

// Each script says in a comment what it returns a list of.
var (
	//go:embed contrast.js
	contrast string
	//go:embed wide.js
	wide string
	//go:embed small.js
	small string
)

// Contrast returns the texts and parts of pictures with too little contrast to their background.
func (b *Browser) Contrast() []string { b.t.Helper(); return b.Texts(contrast) }

// TooWide returns the elements that extend beyond the screen's right edge.
func (b *Browser) TooWide() []string { b.t.Helper(); return b.Texts(wide) }

// TooSmall returns the controls that are too small to be pressed with a finger (WCAG 2.5.8);
// links within a sentence are exempt there.
func (b *Browser) TooSmall() []string { b.t.Helper(); return b.Texts(small) }
