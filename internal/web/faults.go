package web

import (
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
)

// Faults counts the requests that ended in a fault of sqlwatch.
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
			log.Error("a request ended in a fault of sqlwatch; everything else goes on",
				"method", r.Method, "path", r.URL.Path, "panic", cause, "stack", string(debug.Stack()))
			http.Error(rw, "a fault of sqlwatch: see its log", http.StatusInternalServerError)
		}()
		next.ServeHTTP(rw, r)
	})
}
