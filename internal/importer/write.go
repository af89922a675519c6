package importer

import (
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
)

// write prints the configuration.
func (c *conversion) write() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "# Made from %s by `sqlwatch import`.\n", oneLine(c.Source))
	b.WriteString("#\n# The replicas are Litestream's own places. Stop Litestream first; then start once with\n# " +
		"`sqlwatch run --adopt=DATABASE` to continue its history, or change prefix and dir to begin a new one.\n")
	for _, list := range []struct {
		title   string
		remarks []Remark
	}{{"Dropped", c.result.Dropped}, {"To know", c.result.Notes}} {
		if len(list.remarks) > 0 {
			fmt.Fprintf(&b, "#\n# %s:\n", list.title)
		}
		for _, r := range list.remarks {
			fmt.Fprintf(&b, "#   %s: %s\n", oneLine(c.env.plainNames(r.Where)), oneLine(c.env.plainNames(r.Why)))
		}
	}
	if !c.listen.empty() {
		fmt.Fprintf(&b, "\nserver {\n  listen = %s\n}\n", c.env.expression(c.listen))
	}
	for _, d := range c.databases {
		c.writeDatabase(&b, d)
	}
	for _, r := range c.replicas {
		c.writeReplica(&b, r)
	}
	return hclwrite.Format([]byte(b.String()))
}

func (c *conversion) writeDatabase(b *strings.Builder, d database) {
	fmt.Fprintf(b, "\ndatabase %s {\n", quoted(d.name))
	if d.glob.empty() {
		fmt.Fprintf(b, "  path = %s\n", c.env.expression(d.path))
	} else {
		fmt.Fprintf(b, "  glob = %s\n", c.env.expression(d.glob))
	}
	if len(d.replicas) > 0 {
		refs := make([]string, len(d.replicas))
		for i, r := range d.replicas {
			refs[i] = "replica." + r
		}
		fmt.Fprintf(b, "  replicate_to = [%s]\n", strings.Join(refs, ", "))
	}
	b.WriteString("}\n")
}

func (c *conversion) writeReplica(b *strings.Builder, r replica) {
	fmt.Fprintf(b, "\nreplica %s %s {\n", quoted(r.typ), quoted(r.label))
	place := c.env.expression(r.place)
	if r.beneath { // each database below it under its file's name, as Litestream lays them out
		text := strings.TrimSuffix(expressionInside(place), "/")
		place = `"` + strings.TrimPrefix(text+"/", "/") + `${path_element(db.path, -1)}"`
		if strings.HasPrefix(text, "/") {
			place = `"` + text + `/${path_element(db.path, -1)}"`
		}
	}
	if r.typ == "file" {
		fmt.Fprintf(b, "  dir = %s\n", place)
	} else {
		fmt.Fprintf(b, "  bucket = %s\n", c.env.expression(r.bucket))
		if place != `""` {
			fmt.Fprintf(b, "  prefix = %s\n", place)
		}
		for _, a := range []struct {
			name string
			v    value
		}{{"region", r.region}, {"endpoint", r.server}} {
			if !a.v.empty() {
				fmt.Fprintf(b, "  %s = %s\n", a.name, c.env.expression(a.v))
			}
		}
		if r.pathStyle {
			b.WriteString("  path_style = true\n")
		}
		if !r.access.empty() {
			fmt.Fprintf(b, "  credentials {\n    access_key = %s\n    secret_key = secret(%s)\n  }\n",
				c.env.expression(r.access), c.env.expression(r.secret))
		}
	}
	if r.sync > 0 {
		fmt.Fprintf(b, "  sync_every = %s\n", quoted(r.sync.String()))
	}
	for _, s := range []struct {
		block string
		d     time.Duration
	}{{"snapshot { every", r.snapshot}, {"retention { keep", r.keep}, {"verify { every", r.verify}} {
		if s.d > 0 {
			fmt.Fprintf(b, "  %s = %s }\n", s.block, quoted(s.d.String()))
		}
	}
	b.WriteString("}\n")
}

// expressionInside returns what stands between the quotes of a template, or a
// call as a part of one.
func expressionInside(expression string) string {
	if inner, ok := strings.CutPrefix(expression, `"`); ok {
		return strings.TrimSuffix(inner, `"`)
	}
	return "${" + expression + "}"
}

func quoted(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// plainNames shows marked variables as $NAME.
func (e *expansion) plainNames(text string) string {
	return strings.NewReplacer(opening, "$", closing, "").Replace(text)
}
