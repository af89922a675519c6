package metric

import (
	"bytes"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Text writes counters and gauges in one of the text formats, as the client library
// does and in a fifth of its time: of a thousand databases that is most of a scrape.
// What is rare is left to the library: histograms, names that need quotes, timestamps.
type Text struct {
	open bool // OpenMetrics; else the Prometheus text format
}

// TextOf returns what writes a format; nil if that is none of text.
func TextOf(format expfmt.Format) *Text {
	switch format.FormatType() {
	case expfmt.TypeTextPlain:
		return &Text{}
	case expfmt.TypeOpenMetrics:
		switch format.Version() {
		case expfmt.OpenMetricsVersion_1_0_0, expfmt.OpenMetricsVersion_0_0_1:
			return &Text{open: true}
		}
	}
	return nil
}

// AppendFamily appends a family to b. It reports false, and returns b as it was, where
// the family is one for the library.
func (t Text) AppendFamily(b []byte, f *dto.MetricFamily) ([]byte, bool) {
	before := len(b)
	gauges := f.GetType() == dto.MetricType_GAUGE
	if !gauges && f.GetType() != dto.MetricType_COUNTER || f.Help == nil || f.Unit != nil ||
		!model.LegacyValidation.IsValidMetricName(f.GetName()) {
		return b, false
	}
	b, ok := t.head(b, f), true
	for _, m := range f.Metric {
		var value float64
		switch {
		case m.TimestampMs != nil || gauges && m.Gauge == nil || !gauges && (m.Counter == nil || m.Counter.Exemplar != nil):
			return b[:before], false
		case gauges:
			value = m.Gauge.GetValue()
		default:
			value = m.Counter.GetValue()
		}
		b = append(b, f.GetName()...)
		if b, ok = appendLabels(b, m.Label); !ok {
			return b[:before], false
		}
		b = t.appendFloat(append(b, ' '), value)
		b = append(b, '\n')
	}
	return b, true
}

// AppendSeries appends a series of a family's name, whose head is written before.
func (t Text) AppendSeries(b []byte, name string, s *Series) []byte {
	b = append(append(b, name...), s.Labels.text...)
	b = t.appendFloat(append(b, ' '), s.Value)
	return append(b, '\n')
}

var (
	escaper       = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	quotedEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

// head appends the lines above a family. OpenMetrics names a counter there without
// what its samples end in.
func (t Text) head(b []byte, f *dto.MetricFamily) []byte {
	name, kind, help := f.GetName(), Gauge, escaper.Replace(f.GetHelp())
	if f.GetType() == dto.MetricType_COUNTER {
		kind = Counter
	}
	if t.open {
		help = quotedEscaper.Replace(f.GetHelp())
		if kind == Counter {
			var total bool
			if name, total = strings.CutSuffix(name, "_total"); !total {
				kind = "unknown"
			}
		}
	}
	for _, s := range []string{"# HELP ", name, " ", help, "\n# TYPE ", name, " ", string(kind), "\n"} {
		b = append(b, s...)
	}
	return b
}

func appendLabels(b []byte, labels []*dto.LabelPair) (_ []byte, ok bool) {
	next := byte('{')
	for _, l := range labels {
		if !model.LegacyValidation.IsValidLabelName(l.GetName()) {
			return b, false
		}
		b = append(append(b, next), l.GetName()...)
		b = append(b, '=', '"')
		if value := l.GetValue(); strings.ContainsAny(value, "\\\n\"") {
			b = append(b, quotedEscaper.Replace(value)...)
		} else {
			b = append(b, value...)
		}
		b = append(b, '"')
		next = ','
	}
	if len(labels) > 0 {
		b = append(b, '}')
	}
	return b, true
}

// appendFloat appends a value, which is a float in OpenMetrics also where it is whole.
func (t Text) appendFloat(b []byte, v float64) []byte {
	before := len(b)
	if whole := int64(v); float64(whole) == v && -1e6 < v && v < 1e6 { // the most, and beyond it is an exponent
		b = strconv.AppendInt(b, whole, 10)
	} else {
		b = strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	if t.open && !bytes.ContainsAny(b[before:], ".eIN") { // nor Inf, NaN
		b = append(b, '.', '0')
	}
	return b
}
