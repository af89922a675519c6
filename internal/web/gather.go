package web

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// Gatherer gathers the metrics of our own collectors, whose names, labels and
// help stand in a catalogue, and those of another Gatherer. A registry proves at
// each scrape again that no two series are the same and all fit their
// descriptors; with a thousand databases that costs more than all the rest. Here
// it is proved once, by tests that use a registry. That labels are UTF-8 the
// client library has seen to when it made them.
type Gatherer struct {
	// Detail shows what a metric leaves out (AbsentAtZero, Bounds). Set before the
	// first scrape.
	Detail bool

	rest       prometheus.Gatherer
	collectors []prometheus.Collector
	metrics    []metric.Metric
	index      map[*prometheus.Desc]int // into metrics
	pages      sync.Pool                // of *page
}

// NewGatherer returns a Gatherer, or an error where a collector describes what is
// not in the catalogue.
func NewGatherer(rest prometheus.Gatherer, catalogue []metric.Metric, collectors ...prometheus.Collector) (*Gatherer,
	error) {
	g := &Gatherer{rest: rest, collectors: collectors, metrics: catalogue, index: map[*prometheus.Desc]int{}}
	for _, c := range collectors {
		descs := make(chan *prometheus.Desc)
		go func() {
			defer close(descs)
			c.Describe(descs)
		}()
		for d := range descs {
			i := slices.IndexFunc(catalogue, func(m metric.Metric) bool {
				return strings.HasPrefix(d.String(), "Desc{fqName: "+strconv.Quote(m.Name)+",")
			})
			g.index[d] = i
		}
	}
	for d, i := range g.index {
		if i < 0 {
			return nil, fmt.Errorf("metric %s is not in the catalogue", d)
		}
	}
	return g, nil
}

// Gather implements prometheus.Gatherer.
func (g *Gatherer) Gather() ([]*dto.MetricFamily, error) {
	p := g.newPage()
	err := p.gather(nil)
	families := make([]*dto.MetricFamily, len(p.families))
	for i := range p.families {
		families[i] = p.families[i].MetricFamily
	}
	return families, err
}

func (g *Gatherer) newPage() *page {
	return &page{Gatherer: g, found: make([][]keyed, len(g.metrics)), lines: make([][]byte, len(g.metrics))}
}

// borrow returns a page that nobody uses. It is given back with clear.
func (g *Gatherer) borrow() *page {
	if p, _ := g.pages.Get().(*page); p != nil {
		return p
	}
	return g.newPage()
}

// page is one scrape and its memory. The next one uses it again: to allocate it anew
// was to have the garbage collected of the whole daemon at each scrape.
type page struct {
	*Gatherer
	text *metric.Text // in which series are written where they are found; nil: as families

	lines    [][]byte  // by metric: series, as text
	found    [][]keyed // by metric: others, and all where there is no text
	slabs    [][]line
	used     int
	families []family
	errs     []error
}

// family is one of a page, and the text of those of its series that have one.
type family struct {
	*dto.MetricFamily
	lines []byte
}

// gather fills an empty page.
func (p *page) gather(text *metric.Text) error {
	p.text = text
	rest, err := p.rest.Gather()
	p.errs = append(p.errs, err)
	for _, f := range rest {
		p.families = append(p.families, family{MetricFamily: f})
	}
	for _, c := range p.collectors {
		p.errs = append(p.errs, p.collect(c))
	}
	for i, m := range p.metrics {
		if len(p.found[i]) > 0 || len(p.lines[i]) > 0 {
			p.families = append(p.families, family{&dto.MetricFamily{Name: &m.Name, Help: &m.Help, Type: familyType(m.Type),
				Metric: inOrder(p.found[i])}, p.lines[i]})
		}
	}
	slices.SortFunc(p.families, func(a, b family) int { return strings.Compare(a.GetName(), b.GetName()) })
	return errors.Join(p.errs...)
}

// collect runs a collector. A panic in it costs its metrics and not the process.
func (p *page) collect(c prometheus.Collector) (err error) {
	if source, ok := c.(metric.Source); ok {
		defer survive(&err)
		source.Export(p)
		return nil
	}
	metrics, ended := make(chan prometheus.Metric, 4096), make(chan error, 1)
	go func() {
		var err error
		defer func() { ended <- err }()
		defer close(metrics)
		defer survive(&err)
		c.Collect(metrics)
	}()
	for m := range metrics {
		p.PutOther(m)
	}
	return <-ended
}

func survive(err *error) {
	if cause := recover(); cause != nil {
		*err = fmt.Errorf("a collector panicked: %v", cause)
	}
}

// Put implements metric.Sink.
func (p *page) Put(s *metric.Series) {
	i, known := p.index[s.Of]
	switch {
	case !known:
		p.errs = append(p.errs, fmt.Errorf("metric %s was not described", s.Of))
	case s.Value == 0 && p.metrics[i].AbsentAtZero && !p.Detail:
	case p.text != nil:
		p.lines[i] = p.text.AppendSeries(p.lines[i], p.metrics[i].Name, s)
	default:
		p.found[i] = append(p.found[i], newKeyed(p.next().of(s)))
	}
}

// PutOther implements metric.Sink.
func (p *page) PutOther(m prometheus.Metric) {
	i, known := p.index[m.Desc()]
	if !known {
		p.errs = append(p.errs, fmt.Errorf("metric %s was not described", m.Desc()))
		return
	}
	one := &p.next().Metric
	if err := m.Write(one); err != nil {
		p.errs = append(p.errs, err)
	} else if p.Detail || !untold(&p.metrics[i], one) {
		p.found[i] = append(p.found[i], newKeyed(one))
	}
}

// line is one series of a page, and what it points to.
type line struct {
	dto.Metric
	counter dto.Counter
	gauge   dto.Gauge
	value   float64
}

const slabLines = 512

// next returns an empty line.
func (p *page) next() *line {
	at := p.used
	p.used++
	if at/slabLines == len(p.slabs) {
		p.slabs = append(p.slabs, make([]line, slabLines))
	}
	return &p.slabs[at/slabLines][at%slabLines]
}

// clear forgets all, so that what it pointed to can go, and gives the page back.
func (p *page) clear() {
	for i := range p.used {
		p.slabs[i/slabLines][i%slabLines].Metric.Reset()
	}
	for i := range p.metrics {
		clear(p.found[i])
		p.found[i], p.lines[i] = p.found[i][:0], p.lines[i][:0]
	}
	clear(p.families)
	clear(p.errs)
	p.families, p.errs, p.used = p.families[:0], p.errs[:0], 0
	p.pages.Put(p)
}

// of makes the line that of a series.
func (l *line) of(s *metric.Series) *dto.Metric {
	l.Label, l.value = s.Labels.Pairs, s.Value
	if s.Type == metric.Counter {
		l.counter.Value, l.Counter = &l.value, &l.counter
	} else {
		l.gauge.Value, l.Gauge = &l.value, &l.gauge
	}
	return &l.Metric
}

// untold reports whether a series is one that a metric leaves out, and takes the
// buckets that it leaves out from a histogram.
func untold(m *metric.Metric, series *dto.Metric) bool {
	h := series.Histogram
	if h != nil && m.Bounds != nil {
		h.Bucket = slices.DeleteFunc(h.Bucket, func(b *dto.Bucket) bool {
			return !slices.Contains(m.Bounds, b.GetUpperBound())
		})
	}
	return m.AbsentAtZero && series.GetCounter().GetValue() == 0 && series.GetGauge().GetValue() == 0 &&
		h.GetSampleCount() == 0
}

// keyed is a series and the value of its first label. Most comparisons end
// there, and need not look for it in four other places of memory.
type keyed struct {
	first  string
	series *dto.Metric
}

func newKeyed(m *dto.Metric) keyed {
	if len(m.Label) == 0 {
		return keyed{series: m}
	}
	return keyed{m.Label[0].GetValue(), m}
}

// inOrder sorts the series of a family by their labels.
func inOrder(found []keyed) []*dto.Metric {
	slices.SortFunc(found, func(a, b keyed) int {
		if c := strings.Compare(a.first, b.first); c != 0 {
			return c
		}
		return compareLabels(a.series, b.series, 1)
	})
	metrics := make([]*dto.Metric, len(found))
	for i, k := range found {
		metrics[i] = k.series
	}
	return metrics
}

// compareLabels orders the series of a family by the labels from one on. Those
// are sorted by name, and their names are the same.
func compareLabels(a, b *dto.Metric, from int) int {
	for i := from; i < min(len(a.Label), len(b.Label)); i++ {
		if c := strings.Compare(a.Label[i].GetValue(), b.Label[i].GetValue()); c != 0 {
			return c
		}
	}
	return len(a.Label) - len(b.Label)
}

func familyType(t metric.Type) *dto.MetricType {
	switch t {
	case metric.Counter:
		return dto.MetricType_COUNTER.Enum()
	case metric.Histogram:
		return dto.MetricType_HISTOGRAM.Enum()
	}
	return dto.MetricType_GAUGE.Enum()
}
