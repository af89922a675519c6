package web

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"

	"github.com/sqlwatch/sqlwatch/internal/plant"
)

// Faults counts the requests that failed because of a bug in sqlwatch.
type Faults struct{ n atomic.Int64 }

// Count returns how many there were since the start.
func (f *Faults) Count() int { return int(f.n.Load()) }

// recovering answers 500 where a handler panics, counts that and says it aloud.
func recovering(next http.Handler, faults *Faults, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		defer func() {
			cause := recover()
			switch cause {
			case nil:
				return
			case http.ErrAbortHandler:
				panic(cause) // asked for: the connection is closed
			}
			if faults != nil {
				faults.n.Add(1)
			}
			log.Error("a request failed because of a bug in sqlwatch; everything else continues",
				"method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
			http.Error(rw, "a bug in sqlwatch: see its log", http.StatusInternalServerError)
		}()
		plant.Panic("request", r.URL.Path)
		next.ServeHTTP(rw, r)
	})
}
