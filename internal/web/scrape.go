package web

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/common/expfmt"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// scrapes answers /metrics in every format that the client library knows. It makes
// one page at a time: several at once would cost a daemon of many databases their
// memory at once, and its watchdog both processors.
type scrapes struct {
	gatherer *Gatherer
	log      *slog.Logger
	places   chan struct{} // of those that wait and the one at work
	making   sync.Mutex
	zippers  sync.Pool // of *gzip.Writer
}

func newScrapes(g *Gatherer, log *slog.Logger) *scrapes {
	return &scrapes{gatherer: g, log: log, places: make(chan struct{}, maxScrapes)}
}

// ServeHTTP implements http.Handler. What can be gathered is shown, also where
// something else cannot.
func (s *scrapes) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	default:
		http.Error(rw, fmt.Sprintf("%d scrapes are under way already: try again later", maxScrapes),
			http.StatusServiceUnavailable)
		return
	}
	s.making.Lock()
	defer s.making.Unlock()
	if r.Context().Err() != nil {
		return // gone while it waited
	}
	format := expfmt.NegotiateAccept(r.Header, expfmt.DefaultOpenMetricsAcceptedFormats()...)
	p := s.gatherer.borrow()
	defer p.clear()
	if err := p.gather(metric.TextOf(format)); err != nil {
		s.log.Error("some metrics could not be gathered; all others are shown", "err", err)
		if len(p.families) == 0 {
			http.Error(rw, "nothing could be gathered: "+err.Error(), http.StatusInternalServerError)
			return
		}
	}
	if names := r.URL.Query()["name[]"]; len(names) > 0 {
		p.families = slices.DeleteFunc(p.families, func(f family) bool { return !slices.Contains(names, f.GetName()) })
	}
	h := rw.Header()
	h.Add("Vary", "Accept")
	h.Add("Vary", "Accept-Encoding")
	h.Set("Content-Type", string(format))
	var err error
	if !takesGzip(r) {
		err = p.write(rw, format)
	} else {
		h.Set("Content-Encoding", "gzip")
		zipper := s.zipper(rw)
		err = errors.Join(p.write(zipper, format), zipper.Close())
		s.zippers.Put(zipper)
	}
	if err != nil {
		s.log.Error("some metrics could not be written; all others are shown", "err", err)
	}
}

// zipper returns what compresses onto w, at the level that costs least: pages are
// so much alike in themselves that even that leaves a tenth of them.
func (s *scrapes) zipper(w io.Writer) *gzip.Writer {
	zipper, _ := s.zippers.Get().(*gzip.Writer)
	if zipper == nil {
		zipper, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level exists
	}
	zipper.Reset(w)
	return zipper
}

// write writes a page in the format for which it was gathered.
func (p *page) write(w io.Writer, format expfmt.Format) error {
	library := expfmt.NewEncoder(w, format)
	var head []byte
	var errs []error
	for _, f := range p.families {
		written := false
		if p.text != nil {
			head, written = p.text.AppendFamily(head[:0], f.MetricFamily)
		}
		if !written {
			errs = append(errs, library.Encode(f.MetricFamily))
			continue
		}
		for _, part := range [][]byte{head, f.lines} {
			_, err := w.Write(part)
			errs = append(errs, err)
		}
	}
	if end, ok := library.(expfmt.Closer); ok { // of OpenMetrics: # EOF
		errs = append(errs, end.Close())
	}
	return errors.Join(errs...)
}

// takesGzip reports whether a client accepts compression.
func takesGzip(r *http.Request) bool {
	for _, one := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		coding, parameter, _ := strings.Cut(one, ";")
		if !strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			continue
		}
		weight, weighed := strings.CutPrefix(strings.TrimSpace(parameter), "q=")
		q, err := strconv.ParseFloat(weight, 64)
		return !weighed || err != nil || q > 0
	}
	return false
}
