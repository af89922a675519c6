package collector

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sqlwatch/sqlwatch/internal/metric"
)

// Exporter is a prometheus.Collector of every metric in Catalogue. A scrape shows the
// latest published samples: it opens no database, reads no file and waits for no lock.
type Exporter struct {
	samples func() []*Sample
	busy    []namedBusy
	steps   func(db string) (n uint64, counted bool)
	now     func() time.Time
	table   *metric.Table
}

type namedBusy struct {
	name   string
	source BusySource
}

// The values of sqlite_busy_total's source label.
const (
	SourceKernel = "ebpf"     // refusals to all other processes, as the kernel reports them
	SourceSelf   = "sqlwatch" // refusals to this process's own operations
	SourceSteps  = "step"     // what sqlite3_step returned in the processes of chosen databases
)

// anyLock is the lock label of SourceSteps: sqlite3_step does not report which lock it was.
const anyLock = "any"

// NewExporter returns an Exporter of the samples that the function returns at each
// scrape. If two samples have the same DB, the first one is shown: one wrong name must
// not make the whole scrape fail.
func NewExporter(samples func() []*Sample) *Exporter {
	return &Exporter{
		samples: samples,
		busy:    []namedBusy{{name: SourceKernel}, {name: SourceSelf}},
		steps:   func(string) (uint64, bool) { return 0, false },
		now:     time.Now,
		table:   metric.NewTable(catalogue),
	}
}

// SetBusySource makes s the source of sqlite_busy_total{source=name}, where name is SourceKernel
// or SourceSelf. Call it before the first scrape; a name without a source is exported at 0.
func (e *Exporter) SetBusySource(name string, s BusySource) {
	for i := range e.busy {
		if e.busy[i].name == name {
			e.busy[i].source = s
		}
	}
}

// SetStepSource makes counts the source of sqlite_busy_total{source="step"}. The series
// exists for the databases that counts reports as counted. Call it before the first scrape.
func (e *Exporter) SetStepSource(counts func(db string) (n uint64, counted bool)) {
	e.steps = counts
}

// Describe implements prometheus.Collector.
func (e *Exporter) Describe(ch chan<- *prometheus.Desc) { e.table.Describe(ch) }

// Collect implements prometheus.Collector.
func (e *Exporter) Collect(ch chan<- prometheus.Metric) { e.Export(metric.Channel(ch)) }

// Export implements metric.Source.
func (e *Exporter) Export(to metric.Sink) {
	began := e.now()
	out := &scrape{Scrape: e.table.Begin(to), exporter: e, to: to, now: began}
	defer out.End()
	var dbs []row
	for _, s := range e.samples() {
		db := validLabel(s.DB)
		of, first := out.Row(db)
		if !first {
			continue
		}
		out.row = row{of, db}
		dbs = append(dbs, out.row)
		out.database(s)
		out.wal(s)
		out.readersAndLocks(s)
		out.disk(s.Disk)
	}
	out.collector("databases", began, true)
	began = e.now()
	works := out.refusals(dbs)
	out.collector("busy", began, works)
}

// scrape is a scrape in progress.
type scrape struct {
	*metric.Scrape
	exporter *Exporter
	to       metric.Sink
	now      time.Time
	row      row // of the database being written
}

// row has the series of one database.
type row struct {
	*metric.Row
	db string
}

// write sends one series of the current row.
func (s *scrape) write(m *metric.Metric, value float64, labels ...string) {
	s.row.Put(m, value, labels...)
}

// collector exports whether one of our collectors works.
func (s *scrape) collector(name string, began time.Time, works bool) {
	of, _ := s.Row("\xff" + name) // no database has this name: it would be escaped
	of.Put(&metricScrapeDuration, s.exporter.now().Sub(began).Seconds(), name)
	of.Put(&metricScrapeSuccess, metric.Bool(works), name)
}

func (s *scrape) database(p *Sample) {
	d := &p.Database
	s.write(&metricUp, metric.Bool(p.State == StateUp), s.row.db)
	s.write(&metricSampled, metric.Timestamp(p.At), s.row.db)
	s.write(&metricDatabaseInfo, 1, s.row.db, validLabel(p.Path), d.JournalMode, p.State.String())
	s.write(&metricWALResetBug, metric.Bool(d.WALResetBug), s.row.db)
	s.write(&metricProcesses, float64(d.Processes), s.row.db)
	if d.EngineVersion != "" {
		s.write(&metricEngineInfo, 1, s.row.db, d.EngineVersion)
	}
	if p.State == StateMissing || p.State == StateUnknown {
		return
	}
	s.write(&metricDatabaseSize, float64(d.SizeBytes), s.row.db)
	if d.PageSize > 0 {
		s.write(&metricPageSize, float64(d.PageSize), s.row.db)
		s.write(&metricPages, float64(d.Pages), s.row.db)
		s.write(&metricFreelistPages, float64(d.FreelistPages), s.row.db)
	}
}

func (s *scrape) wal(p *Sample) {
	w := &p.WAL
	s.write(&metricCommits, float64(w.CommitsTotal), s.row.db)
	s.write(&metricFramesWritten, float64(w.FramesWrittenTotal), s.row.db)
	s.write(&metricResets, float64(w.ResetsTotal), s.row.db)
	s.write(&metricLastWrite, metric.Timestamp(w.LastWrite), s.row.db)
	s.write(&metricLastCheckpoint, metric.Timestamp(w.LastCompleteCheckpoint), s.row.db)
	if !w.Known {
		return
	}
	s.write(&metricWALSize, float64(w.SizeBytes), s.row.db)
	s.write(&metricFrames, float64(w.Frames), s.row.db)
	if w.Exclusive {
		return
	}
	s.write(&metricCheckpointed, float64(w.CheckpointedFrames), s.row.db)
	lag := 0.0
	if !w.LagSince.IsZero() {
		lag = max(0, s.now.Sub(w.LagSince).Seconds())
	}
	s.write(&metricCheckpointLag, lag, s.row.db)
}

func (s *scrape) readersAndLocks(p *Sample) {
	s.write(&metricLockHeld, p.Locks.WriteRatio, s.row.db, LockWrite.String())
	s.write(&metricLockHeld, p.Locks.CheckpointRatio, s.row.db, LockCheckpoint.String())
	if p.State != StateUp {
		return
	}
	oldest := 0.0
	if p.Readers.Active > 0 {
		oldest = float64(p.Readers.OldestFrame)
	}
	s.write(&metricReaders, float64(p.Readers.Active), s.row.db)
	s.write(&metricOldestReader, oldest, s.row.db)
	s.write(&metricPinnedSince, metric.Timestamp(p.Readers.PinnedSince), s.row.db)
}

func (s *scrape) disk(d Disk) {
	if !d.Known {
		return
	}
	s.write(&metricFilesystemInfo, 1, s.row.db, validLabel(d.FSType), validLabel(d.Mountpoint))
	s.write(&metricAvail, float64(d.FreeBytes), s.row.db)
	s.write(&metricFilesystemSize, float64(d.SizeBytes), s.row.db)
}

// refusals exports sqlite_busy_total of every database, and the holds of its write
// lock if a source measures them. It reports whether the kernel's source works.
func (s *scrape) refusals(dbs []row) bool {
	works := false
	for _, s.row = range dbs {
		if n, counted := s.exporter.steps(s.row.db); counted {
			s.write(&metricBusy, float64(n), s.row.db, anyLock, SourceSteps)
		}
	}
	for _, b := range s.exporter.busy {
		for _, s.row = range dbs {
			db := s.row.db
			var counts BusyCounts
			var err error
			if b.source != nil {
				counts, err = b.source.Counts(db)
			}
			for lock, n := range counts {
				s.write(&metricBusy, float64(n), db, Lock(lock).String(), b.name)
			}
			if timed, ok := b.source.(HoldSource); ok && err == nil {
				s.holds(timed, db)
			}
		}
		if b.name == SourceKernel && b.source != nil {
			_, err := b.source.Counts("")
			works = err == nil
		}
	}
	return works
}

func (s *scrape) holds(source HoldSource, db string) {
	h, err := source.WriteHolds(db)
	if err != nil {
		return
	}
	buckets := make(map[float64]uint64, len(h.Buckets))
	for bound, n := range h.Buckets {
		buckets[bound.Seconds()] = n
	}
	desc := s.exporter.table.Desc(&metricWriteHold)
	metric, err := prometheus.NewConstHistogram(desc, h.Count, h.Sum.Seconds(), buckets, db)
	if err != nil {
		metric = prometheus.NewInvalidMetric(desc, err)
	}
	s.to.PutOther(metric)
}

// validLabel returns name in a form that a label allows: bytes that are not UTF-8
// would make the whole scrape fail (H12). They are escaped rather than replaced, so
// that two such names remain different.
func validLabel(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strings.Trim(strconv.Quote(name), `"`)
}
