package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/internal/checkpoint"
	"github.com/sqlwatch/sqlwatch/policy/catalogue"
	"github.com/sqlwatch/sqlwatch/policy/lang"
)

const tiers = `
policy "shrink" {
  for_each  = {
    gold   = { limit = bytes("32MB"), budget = "20ms", priority = 10 }
    silver = { limit = bytes("64MB"), budget = "80ms", priority = 5 }
  }
  databases = ["${each.key}-*"]
  when      = max_over(wal.bytes - each.value.limit, "1m") > 0 && wal.bytes > each.value.limit
  priority  = each.value.priority
  message   = "${each.key} is over ${human_bytes(each.value.limit)}"
  notify    = [notifier.webhook.ops]
  checkpoint {
    stall_budget = each.value.budget
  }
}
`

// A block with for_each is a policy for each key, with values of its own.
func TestForEach(t *testing.T) {
	t.Parallel()
	set := mustParse(t, tiers)
	if len(set.Policies) != 2 {
		t.Fatalf("%d policies", len(set.Policies))
	}
	gold, silver := set.Policies[0], set.Policies[1]
	if gold.Name != "shrink-gold" || silver.Name != "shrink-silver" || gold.Priority != 10 || silver.Priority != 5 ||
		gold.Ladder.StallBudget != 20*time.Millisecond || silver.Ladder.StallBudget != 80*time.Millisecond ||
		gold.Range.Start.Line != 2 || silver.Range.Start.Line != 2 {
		t.Errorf("%+v\n%+v", gold, silver)
	}
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for db, want := range map[string]string{"gold-a": "gold-a", "silver-a": ""} {
		h := set.NewHistory()
		for range 3 {
			now = now.Add(time.Second)
			s := sample(now, 48e6)
			s.DB = db
			h.Add(s)
		}
		s := sample(now, 48e6)
		s.DB = db
		d := set.Evaluate(Input{Now: now, Sample: s, History: h}, nil)
		switch {
		case len(d.Policies) != 1:
			t.Errorf("%s: %d policies", db, len(d.Policies))
		case want == "" && d.Action != nil:
			t.Errorf("%s acts: %s", db, d.Policies[0].Reason)
		case want != "" && (d.Action == nil || d.Action.Message != "gold is over 32 MB"):
			t.Errorf("%s: %+v", db, d.Policies[0])
		}
		if tree := d.Policies[0].Tree.String(); !strings.Contains(tree, "each.value.limit = ") ||
			strings.Contains(tree, "shrink-gold.value") {
			t.Errorf("explained as\n%s", tree)
		}
	}
}

// In a list, each element is both key and value. The policies made from it do not share
// what functions over time keep.
func TestForEachOfAList(t *testing.T) {
	t.Parallel()
	set := mustParse(t, `
policy "p" {
  for_each = ["b", "a"]
  when     = max_over(wal.bytes > (each.value == "a" ? 1 : 1e12), "1m") > 0.5
  sync {}
}`)
	if names := set.Policies[0].Name + " " + set.Policies[1].Name; names != "p-b p-a" {
		t.Errorf("policies %s", names)
	}
	h, now := set.NewHistory(), time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	for range 3 {
		now = now.Add(time.Second)
		h.Add(sample(now, 5e6))
	}
	d := set.Evaluate(Input{Now: now, Sample: sample(now, 5e6), History: h}, nil)
	if d.Policies[0].When != False || d.Policies[1].When != True {
		t.Errorf("when is %v and %v, want false and true", d.Policies[0].When, d.Policies[1].When)
	}
}

func TestForEachErrors(t *testing.T) {
	t.Parallel()
	for attributes, want := range map[string]string{
		"for_each = [\"a\", \"a\"]\n when = true":                                "twice",
		"for_each = [\"a/b\"]\n when = true":                                     "a key consists of letters",
		"for_each = [1]\n when = true":                                           "Each element is text",
		"for_each = \"a\"\n when = true":                                         "is a list of texts",
		"for_each = null\n when = true":                                          "for_each is null",
		"for_each = { a = 1 }\n when = wal.bytes > each.valeu":                   "no such thing",
		"for_each = { a = { limit = 1 } }\n when = wal.frames > each.value.limt": "no such thing",
		"for_each = { a = duration(\"1m\") }\n when = wal.bytes > each.value":    "do not match",
		"for_each = { a = \"lots\" }\n when = wal.bytes > bytes(each.value)":     "not an amount",
		"when = wal.bytes > each.value":                                          "with for_each",
		"for_each = { a = 5, b = 5 }\n when = wal.byts > each.value":             "wal.byts",
	} {
		_, diags := parse("policy \"p\" {\n " + attributes + "\n sync {}\n}")
		found := 0
		for _, d := range diags {
			if strings.Contains(d.Summary+" "+d.Detail, want) {
				found++
			}
		}
		if found != 1 || !diags.HasErrors() {
			t.Errorf("%s: %v, want %q once", attributes, diags, want)
		}
	}
	if _, diags := parse("policy \"p\" {\n for_each = []\n when = true\n sync {}\n}"); len(diags) != 1 ||
		diags.HasErrors() {
		t.Errorf("an empty list: %v, want a warning", diags)
	}
	if _, diags := parse("policy \"p\" {\n for_each = [\"a\"]\n when = true\n sync {}\n}\n" +
		"policy \"p-a\" {\n when = true\n sync {}\n}"); !diags.HasErrors() ||
		!strings.Contains(diags[0].Detail, "already defined") {
		t.Errorf("a name of another policy: %v", diags)
	}
}

// A policy with hold_off waits after the watch began and after another policy's action.
// After an action of its own, cooldown applies instead.
func TestHoldOff(t *testing.T) {
	t.Parallel()
	set := mustParse(t, `
policy "p" {
  when     = wal.bytes > bytes("1MB")
  hold_off = "5m"
  cooldown = "1s"
  checkpoint {}
}
policy "q" {
  when     = wal.bytes > bytes("100MB")
  cooldown = "1s"
  priority = 1
  snapshot {}
}`)
	start := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	h := set.NewHistory()
	states := map[string]PolicyState{}
	look := func(after time.Duration, wal int64, readable bool) PolicyDecision {
		t.Helper()
		s := sample(start.Add(after), wal)
		if !readable {
			s.State = 0
		}
		h.Add(s)
		d := set.Evaluate(Input{Now: s.At, Sample: s, History: h}, states)
		states = d.Next
		for _, a := range d.Actions {
			result := ActionResult{Outcome: checkpoint.OutcomeTruncated, Reclaimed: wal}
			if a.Policy == "q" {
				result = ActionResult{}
			}
			p := set.Policies[map[string]int{"p": 0, "q": 1}[a.Policy]]
			states[a.Policy] = set.Finished(states[a.Policy], p, s.At, result)
		}
		return d.Policies[0]
	}
	expect := func(what string, d PolicyDecision, guard Guard) {
		t.Helper()
		if d.Refused != guard {
			t.Errorf("%s: refused by %q (%s), want %q", what, d.Refused, d.Reason, guard)
		}
	}
	first := look(0, 5e6, true)
	expect("at the start", first, GuardHoldOff)
	if want := start.Add(5 * time.Minute); !first.Earliest.Equal(want) {
		t.Errorf("earliest %s, want %s", first.Earliest, want)
	}
	for at := time.Duration(0); at < 5*time.Minute; at += 30 * time.Second {
		expect("until it is over", look(at, 5e6, true), GuardHoldOff)
	}
	expect("then", look(5*time.Minute, 5e6, true), GuardNone)
	look(6*time.Minute, 200e6, true) // q acts
	expect("after another's action", look(6*time.Minute+30*time.Second, 5e6, true), GuardHoldOff)
	for at := 7 * time.Minute; at < 11*time.Minute; at += 30 * time.Second {
		expect("after another's action", look(at, 5e6, true), GuardHoldOff)
	}
	expect("when that is over", look(11*time.Minute, 5e6, true), GuardNone)
	look(12*time.Minute, 5e6, false)
	expect("once it can be read again", look(13*time.Minute, 5e6, true), GuardHoldOff)
	if states["p"].Rest == "" {
		t.Error("it has never acted: the test shows nothing")
	}
	var none *lang.History
	if !none.Unbroken().IsZero() {
		t.Error("without a history, a watch has begun")
	}
}

// The catalogue lists all guards, in the order in which they are checked.
func TestCatalogueOfGuards(t *testing.T) {
	t.Parallel()
	var listed []Guard
	for _, g := range catalogue.Guards {
		listed = append(listed, Guard(g.Name))
	}
	if !slices.Equal(listed, Guards()) {
		t.Errorf("listed are %v, there are %v", listed, Guards())
	}
}
