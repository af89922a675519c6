package web

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/sqlwatch/sqlwatch/internal/health"
	"github.com/sqlwatch/sqlwatch/internal/show"
	"github.com/sqlwatch/sqlwatch/internal/watchdog"
)

//go:embed page.html
var pageText string

// maxRows is how many databases the page shows; those in trouble come first.
const maxRows = 300

// statusPage is the page at /. It is complete without scripts; the one script
// asks /page for the rows that have changed and swaps them in place.
type statusPage struct {
	watchdog      *watchdog.Watchdog
	itself        func() Itself
	version       string
	template      *template.Template
	contentPolicy string

	mu   sync.Mutex
	rows map[string]rendered // by name, and whether it is unfolded; as last rendered for anybody
}

// rendered is when a row became what it is.
type rendered struct {
	hash  uint64
	since time.Time
}

func newStatusPage(w *watchdog.Watchdog, itself func() Itself, version string) *statusPage {
	funcs := template.FuncMap{
		"bytes":   show.Bytes,
		"free":    func(n uint64) string { return show.Bytes(int64(n)) },
		"text":    show.Text, // what comes from elsewhere: marks of direction would turn the words around it
		"count":   func(n uint32) string { return humanize.Comma(int64(n)) },
		"things":  show.Count,
		"number":  func(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) },
		"when":    when,
		"span":    show.Span,
		"clock":   show.Clock,
		"hour":    func(t time.Time) string { return t.Local().Format("Mon 15:04:05 MST") },
		"add":     func(a, b int) int { return a + b },
		"level":   levelOf,
		"mark":    func(l level) string { return marks[l] },
		"runbook": runbookOf,
	}
	p := &statusPage{
		watchdog: w, itself: itself, version: version, rows: map[string]rendered{},
		template: template.Must(template.New("page").Funcs(funcs).Parse(pageText)),
	}
	// The template's engine drops comments and may drop more: what counts is what is served.
	var served bytes.Buffer
	if err := p.template.Execute(&served, pageData{}); err != nil {
		panic(fmt.Sprintf("the status page's template is wrong: %v", err)) // as template.Must
	}
	p.contentPolicy = contentPolicy(served.String())
	return p
}

// contentPolicy allows the page's own style and script, as served, by their hash,
// and nothing else.
func contentPolicy(page string) string {
	hash := func(element string) string {
		inner := regexp.MustCompile(`(?s)<` + element + `>(.*?)</` + element + `>`).FindStringSubmatch(page)
		if inner == nil {
			return "'none'"
		}
		sum := sha256.Sum256([]byte(inner[1]))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; style-src " + hash("style") + "; script-src " + hash("script") +
		"; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}

// when shows how long ago t was. A browser with scripts goes on counting by itself,
// so that a row is not another one only because time passes.
func when(t time.Time, after string) template.HTML {
	if t.IsZero() {
		return "not seen"
	}
	return template.HTML(fmt.Sprintf(`<time datetime="%s" data-t="%d" data-after="%s">%s</time>`,
		t.UTC().Format(time.RFC3339), t.UnixMilli(), template.HTMLEscapeString(after),
		show.Span(time.Since(t).Round(time.Second))+template.HTMLEscapeString(after)))
}

var ages = regexp.MustCompile(`>[^<]*</time>`)

// runbooks is where the alerts' runbooks are read.
const runbooks = "https://github.com/sqlwatch/sqlwatch/blob/main/docs/conditions.md#"

func runbookOf(c health.Condition) string {
	if c.Severity == health.Info {
		return ""
	}
	return runbooks + c.ID
}

type pageData struct {
	Version              string
	Title                string
	Verdict              string // what a person wants to know first
	Tally                string // how many are how
	Level                level  // of the worst
	At                   time.Time
	Since                string // what a browser says when it asks for what has changed
	Order                string // stands for the names shown, in their order
	Total, Shown, Hidden int
	Query                string // only names that contain it
	One                  string // the database that was asked for
	Trouble              bool   // only databases in trouble
	Itself               []health.Condition
	LeftOut              []health.LeftOut
	Rows                 []row
}

// ServeHTTP shows all databases, or with ?db=NAME one of them.
func (p *statusPage) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	data, err := p.data(r)
	if err != nil {
		http.Error(rw, err.Error(), http.StatusNotFound)
		return
	}
	var page bytes.Buffer
	if err := p.template.Execute(&page, data); err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	send(rw, r, "text/html; charset=utf-8", page.Bytes())
}

// changes is what /page answers: what differs from what the browser shows.
type changes struct {
	At       time.Time `json:"at"`
	Since    string    `json:"since"`
	Title    string    `json:"title"`
	Verdict  string    `json:"verdict"`
	Head     string    `json:"head"`
	Count    string    `json:"count"`
	OrderTag string    `json:"order_tag"`
	// ids of all rows, where they are others or in another order
	Order []string                 `json:"order,omitempty"`
	Rows  map[string]template.HTML `json:"rows"` // by id: those that have changed
}

// refresh answers the page's script.
func (p *statusPage) refresh(rw http.ResponseWriter, r *http.Request) {
	data, err := p.data(r)
	if err != nil {
		refuse(rw, err)
		return
	}
	out := changes{At: data.At, Since: data.Since, Title: data.Title, OrderTag: data.Order,
		Rows: map[string]template.HTML{}}
	seen, _ := strconv.ParseInt(r.FormValue("since"), 10, 64) // nonsense is 0: all of it
	anew := r.FormValue("order") != data.Order
	for _, row := range data.Rows {
		if anew {
			out.Order = append(out.Order, row.ID)
		}
		if row.since.UnixNano() > seen || slices.Contains(r.Form["anew"], row.Name) {
			out.Rows[row.ID] = row.HTML
		}
	}
	for name, text := range map[string]*string{"verdict": &out.Verdict, "head": &out.Head, "count": &out.Count} {
		var b strings.Builder
		if err := p.template.ExecuteTemplate(&b, name, data); err != nil {
			refuse(rw, err)
			return
		}
		*text = b.String()
	}
	text, err := json.Marshal(out)
	if err != nil {
		refuse(rw, err)
		return
	}
	send(rw, r, "application/json; charset=utf-8", text)
}

// send answers with a text, compressed where the browser can read that: rows in
// the same trouble read nearly the same.
func send(rw http.ResponseWriter, r *http.Request, kind string, text []byte) {
	h := rw.Header()
	h.Set("Content-Type", kind)
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Encoding")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		rw.Write(text) // an error here is the client gone
		return
	}
	h.Set("Content-Encoding", "gzip")
	packed := gzip.NewWriter(rw)
	packed.Write(text)
	packed.Close()
}

// data is what the template shows.
func (p *statusPage) data(r *http.Request) (*pageData, error) {
	chosen, err := choose(p.watchdog, r)
	if err != nil {
		return nil, err
	}
	status, itself := p.watchdog.Status(), p.itself()
	now := time.Now()
	d := &pageData{
		Version: p.version,
		At:      status.At, Since: strconv.FormatInt(now.UnixNano(), 10), Total: len(chosen),
		Query: r.FormValue("q"), One: r.URL.Query().Get("db"), Trouble: r.FormValue("trouble") != "",
		Itself: itself.Conditions, LeftOut: itself.LeftOut[:min(len(itself.LeftOut), maxRows)],
	}
	open := r.Form["open"]
	for _, s := range chosen {
		d.Rows = append(d.Rows, newRow(s, d.One != "", d.One != "" || slices.Contains(open, s.Name)))
	}
	slices.SortStableFunc(d.Rows, func(a, b row) int { return cmp.Compare(badness[b.Level], badness[a.Level]) })
	d.Level, d.Verdict = verdict(d.Rows, itself.Conditions)
	d.Tally = tally(d.Rows)
	d.Title = marks[d.Level] + " sqlwatch: " + d.Verdict
	d.Rows = slices.DeleteFunc(d.Rows, func(r row) bool {
		return d.Trouble && r.Level == good || !strings.Contains(strings.ToLower(r.Name), strings.ToLower(d.Query))
	})
	if len(d.Rows) > maxRows {
		d.Hidden = len(d.Rows) - maxRows
		d.Rows = d.Rows[:maxRows]
	}
	d.Shown = len(d.Rows)
	if d.One != "" && len(d.Rows) == 1 {
		d.Rows[0].Weeks = weeksOf(r.Context(), p.watchdog, d.Rows[0].Name)
	}
	if err := p.render(d.Rows, now); err != nil {
		return nil, err
	}
	order := fnv.New64a()
	for _, r := range d.Rows {
		order.Write([]byte(r.ID + "\x00"))
	}
	d.Order = strconv.FormatUint(order.Sum64(), 36)
	return d, nil
}

// render makes the rows' HTML and notes since when each is what it is. Everybody
// who asks looks at all rows of a kind, so that whoever asked before a row changed
// finds it younger than his question.
func (p *statusPage) render(rows []row, now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rows) > 16*maxRows { // names that are long gone
		p.rows = map[string]rendered{}
	}
	var b bytes.Buffer
	for i := range rows {
		r := &rows[i]
		b.Reset()
		if err := p.template.ExecuteTemplate(&b, "row", r); err != nil {
			return err
		}
		r.HTML = template.HTML(b.String())
		hash := fnv.New64a()
		hash.Write(ages.ReplaceAll(b.Bytes(), nil))
		key := fmt.Sprint(r.Open, r.One, r.Name)
		last := p.rows[key]
		if last.hash != hash.Sum64() {
			last = rendered{hash.Sum64(), now}
			p.rows[key] = last
		}
		r.since = last.since
	}
	return nil
}

// tally says how many databases are how, where they are not all the same.
func tally(rows []row) string {
	n := map[level]int{}
	for _, r := range rows {
		n[r.Level]++
	}
	var all []string
	for _, l := range []struct {
		level level
		words string
	}{{bad, "critical"}, {warn, "to look at"}, {good, "well"}} {
		if n[l.level] > 0 {
			all = append(all, fmt.Sprintf("%d %s", n[l.level], l.words))
		}
	}
	if len(all) < 2 {
		return ""
	}
	return strings.Join(all, " · ")
}

// verdict sums up the rows, the worst first, in one line.
func verdict(rows []row, itself []health.Condition) (level, string) {
	own := levelOf(health.Worst(itself))
	if len(rows) == 0 || badness[own] > badness[rows[0].Level] {
		if health.Wrong(itself) {
			return own, strings.TrimSuffix(itself[0].What, ".")
		}
		return warn, "No database is watched"
	}
	worst := rows[0].Level
	if worst == good {
		if len(rows) == 1 {
			return good, show.Text(rows[0].Name) + " is well"
		}
		return good, fmt.Sprintf("All %d databases are well", len(rows))
	}
	var names []string
	for _, r := range rows {
		if r.Level == worst {
			names = append(names, show.Text(r.Name))
		}
	}
	what := map[level]string{warn: "worth a look", bad: "in trouble"}[worst]
	if len(names) > 3 {
		return worst, fmt.Sprintf("%d of %d databases are %s", len(names), len(rows), what)
	}
	if len(names) == 1 {
		return worst, names[0] + " is " + what
	}
	return worst, strings.Join(names, ", ") + " are " + what
}
