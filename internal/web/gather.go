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
func (g *Gatherer) Gather() ([]*dto.MetricFamily, error) { return g.onto(g.newPage()) }

// reusing is a Gatherer as a prometheus.TransactionalGatherer, whose families are
// whole until they have been done with, and then those of a later scrape.
type reusing struct{ *Gatherer }

// Gather implements prometheus.TransactionalGatherer.
func (g reusing) Gather() (families []*dto.MetricFamily, done func(), err error) {
	p, _ := g.pages.Get().(*page)
	if p == nil {
		p = g.newPage()
	}
	families, err = g.onto(p)
	return families, func() { g.pages.Put(p.clear()) }, err
}

// transactional lets a Gatherer use its memory again; others cannot.
func transactional(g prometheus.Gatherer) prometheus.TransactionalGatherer {
	if ours, ok := g.(*Gatherer); ok {
		return reusing{ours}
	}
	return prometheus.ToTransactionalGatherer(g)
}

func (g *Gatherer) newPage() *page { return &page{found: make([][]keyed, len(g.metrics))} }

// onto gathers the families onto a page, which they need until they are written.
func (g *Gatherer) onto(p *page) ([]*dto.MetricFamily, error) {
	families, err := g.rest.Gather()
	errs := []error{err}
	metrics, collected := make(chan prometheus.Metric, 4096), make(chan error, 1)
	go func() { collected <- g.collect(metrics) }()
	for m := range metrics {
		i, known := g.index[m.Desc()]
		if !known {
			errs = append(errs, fmt.Errorf("metric %s was not described", m.Desc()))
			continue
		}
		if s, simple := m.(*metric.Series); simple && s.Value == 0 && g.metrics[i].AbsentAtZero && !g.Detail {
			continue
		}
		one := p.next()
		switch err := one.write(m); {
		case err != nil:
			errs = append(errs, err)
		case g.Detail || !untold(&g.metrics[i], &one.Metric):
			p.found[i] = append(p.found[i], newKeyed(&one.Metric))
		}
	}
	errs = append(errs, <-collected)
	for i, m := range g.metrics {
		if len(p.found[i]) == 0 {
			continue
		}
		families = append(families, &dto.MetricFamily{Name: &m.Name, Help: &m.Help, Type: familyType(m.Type),
			Metric: inOrder(p.found[i])})
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return families, errors.Join(errs...)
}

// page is the memory of one scrape. The next one uses it again: to allocate it anew
// was to have the garbage collected of the whole daemon at each scrape.
type page struct {
	found [][]keyed // by metric
	slabs [][]line
	used  int
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

// clear forgets all lines, so that what they pointed to can go.
func (p *page) clear() *page {
	for i := range p.used {
		p.slabs[i/slabLines][i%slabLines].Metric.Reset()
	}
	for i := range p.found {
		clear(p.found[i])
		p.found[i] = p.found[i][:0]
	}
	p.used = 0
	return p
}

func (l *line) write(m prometheus.Metric) error {
	s, simple := m.(*metric.Series)
	if !simple {
		return m.Write(&l.Metric)
	}
	l.Label, l.value = s.Labels, s.Value
	if s.Type == metric.Counter {
		l.counter.Value, l.Counter = &l.value, &l.counter
	} else {
		l.gauge.Value, l.Gauge = &l.value, &l.gauge
	}
	return nil
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

// collect runs the collectors. A panic in one costs its metrics and not the process.
func (g *Gatherer) collect(metrics chan<- prometheus.Metric) (err error) {
	defer close(metrics)
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("a collector panicked: %v", cause)
		}
	}()
	for _, c := range g.collectors {
		c.Collect(metrics)
	}
	return nil
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
