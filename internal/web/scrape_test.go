package web

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// The Accept headers of scrapers.
var accepted = map[string]string{
	"nothing":     "",
	"a browser":   "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
	"text 0.0.4":  "text/plain;version=0.0.4",
	"text 1.0.0":  "text/plain;version=1.0.0;escaping=allow-utf-8",
	"OpenMetrics": "application/openmetrics-text",
	"Prometheus 2.42": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75," +
		"text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
	"Prometheus 3": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6," +
		"application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4," +
		"text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
	"OpenMetrics with dots": "application/openmetrics-text;version=1.0.0;escaping=dots",
	"text with values":      "text/plain;version=1.0.0;escaping=values",
	"native histograms": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;" +
		"q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1",
	"protobuf as text": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
	"protobuf as one": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;" +
		"encoding=compact-text",
	"OpenMetrics unknown": "application/openmetrics-text;version=9.0.0",
}

// Every scraper gets the answer of the client library with a registry that checks everything: the
// same headers and lines, whatever the order of the lines within a family.
func TestScrapeIsTheLibrarys(t *testing.T) {
	t.Parallel()
	_, collectors := watching(t, true, "app", "b \"quoted\" \\ ", "ünïcode", "line\nbreak")
	collectors = append(collectors, oddities{})
	all, rest := append(ourCatalogue(), oddMetrics...), others()
	for _, detail := range []bool{true, false} {
		ours, err := NewGatherer(rest, all, collectors...)
		if err != nil {
			t.Fatal(err)
		}
		ours.Detail = detail
		var library http.Handler
		if detail { // everything is shown, so no collector has to leave something out
			registry := prometheus.NewPedanticRegistry()
			registry.MustRegister(collectors...)
			library = libraryHandler(prometheus.Gatherers{registry, rest})
		} else {
			library = libraryHandler(ours)
		}
		for who, accept := range accepted {
			queries := []string{"?name[]=sqlite_up&name[]=odd_total&name[]=no_such", ""}
			if strings.HasPrefix(who, "protobuf as") {
				queries = queries[:1] // durations differ each time and cannot be dropped from protobuf
			}
			for _, query := range queries {
				encodings := []string{"gzip", "", "gzip;q=0", "deflate, gzip;q=0.5"}
				if who != "Prometheus 3" {
					encodings = encodings[:1]
				}
				for _, encoding := range encodings {
					want := scrapeOf(t, library, query, accept, encoding)
					got := scrapeOf(t, newScrapes(ours, slog.New(slog.DiscardHandler)), query, accept, encoding)
					if diff := cmp.Diff(want, got); diff != "" {
						t.Errorf("%s%s, encoding %q, detail %v: -library +ours:\n%s", who, query, encoding, detail, diff)
					}
				}
			}
		}
	}
}

func libraryHandler(g prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// scraped is an answer to a scraper.
type scraped struct {
	Status int
	Header http.Header
	Lines  []string // of text, in order within their family
	Fields []string // of protobuf
}

func scrapeOf(t *testing.T, h http.Handler, query, accept, encoding string) scraped {
	t.Helper()
	request := httptest.NewRequest(http.MethodGet, "http://localhost/metrics"+query, nil)
	request.Header.Set("Accept", accept)
	request.Header.Set("Accept-Encoding", encoding)
	rw := httptest.NewRecorder()
	h.ServeHTTP(rw, request)
	body := rw.Body.Bytes()
	if rw.Header().Get("Content-Encoding") == "gzip" {
		zipped, err := gzip.NewReader(rw.Body)
		if err != nil {
			t.Fatal(err)
		}
		if body, err = io.ReadAll(zipped); err != nil {
			t.Fatal(err)
		}
	}
	if fields := decoded(t, body, rw.Header()); fields != nil {
		return scraped{rw.Code, rw.Header(), nil, fields}
	}
	return scraped{rw.Code, rw.Header(), sortedLines(string(body)), nil}
}

// sortedLines returns the lines of a page, with the samples of each family sorted by name,
// without the durations of the collectors.
func sortedLines(page string) (lines []string) {
	var below []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "sqlwatch_scrape_collector_duration_seconds{") {
			continue
		}
		if strings.HasPrefix(line, "#") {
			slices.Sort(below)
			lines = append(append(lines, below...), line)
			below = nil
			continue
		}
		below = append(below, line)
	}
	slices.Sort(below)
	return append(lines, below...)
}

// decoded returns what a scraper that reads protobuf finds in a page.
func decoded(t *testing.T, body []byte, h http.Header) (found []string) {
	t.Helper()
	format := expfmt.ResponseFormat(h)
	if format.FormatType() != expfmt.TypeProtoDelim {
		return nil
	}
	decoder := expfmt.NewDecoder(bytes.NewReader(body), format)
	for {
		var f dto.MetricFamily
		switch err := decoder.Decode(&f); {
		case errors.Is(err, io.EOF):
			return found
		case err != nil:
			t.Fatal(err)
		case f.GetName() != "sqlwatch_scrape_collector_duration_seconds":
			found = append(found, f.String())
		}
	}
}

// oddities exports the values that each format writes in its own way.
type oddities struct{}

var (
	oddMetrics = []metric.Metric{{Name: "odd_total", Type: metric.Counter, Labels: []string{"a", "b"},
		Help: "A \"help\" \\ of\nlines."},
		{Name: "odd", Type: metric.Gauge, Labels: []string{"value"}, Help: "?"},
		{Name: "no_suffix", Type: metric.Counter, Help: "?"},
		{Name: "odd_seconds", Type: metric.Histogram, Labels: []string{"a"}, Help: "?"}}
	oddDescs = []*prometheus.Desc{oddMetrics[0].Desc(), oddMetrics[1].Desc(), oddMetrics[2].Desc(), oddMetrics[3].Desc()}
)

// Describe implements prometheus.Collector.
func (oddities) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range oddDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (oddities) Collect(ch chan<- prometheus.Metric) {
	ch <- prometheus.MustNewConstMetric(oddDescs[0], prometheus.CounterValue, 1<<53, "", "\\\"\n")
	ch <- prometheus.MustNewConstMetric(oddDescs[0], prometheus.CounterValue, 999_999, "é", "{}, =")
	ch <- prometheus.MustNewConstMetric(oddDescs[2], prometheus.CounterValue, 3)
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1, 2, .5, 1e5, 1e6, 1234567, 1e20, 1e21, 1e-5, 1.76e9,
		1764500000.123, math.NaN(), math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64} {
		ch <- prometheus.MustNewConstMetric(oddDescs[1], prometheus.GaugeValue, v, fmt.Sprint(v, math.Signbit(v)))
	}
	ch <- prometheus.MustNewConstHistogram(oddDescs[3], 1<<21, 1e6, map[float64]uint64{1: 3, .25: 1 << 20}, `"`)
}

// others returns a registry of the metrics that a scrape leaves to the library.
func others() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	counter := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "requests_total", Help: "?"}, []string{"code"})
	counter.WithLabelValues("200").(prometheus.ExemplarAdder).AddWithExemplar(2, prometheus.Labels{"trace": "abc"})
	quoted := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "with.dots", Help: "?"}, []string{"a.label"})
	quoted.WithLabelValues("x").Set(1)
	dotted := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "without_dots", Help: "?"}, []string{"a.label"})
	dotted.WithLabelValues("x").Set(1)
	summary := prometheus.NewSummary(prometheus.SummaryOpts{Name: "took_seconds", Help: "?",
		Objectives: map[float64]float64{.5: .1}})
	summary.Observe(1)
	stamped := prometheus.CollectorFunc(func(ch chan<- prometheus.Metric) {
		one := prometheus.MustNewConstMetric(prometheus.NewDesc("stamped", "", nil, nil), prometheus.GaugeValue, 1)
		ch <- prometheus.NewMetricWithTimestamp(time.Unix(7, 5e8), one)
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("untyped", "", nil, nil), prometheus.UntypedValue, 2)
	})
	registry.MustRegister(counter, quoted, dotted, summary, stamped)
	return registry
}
