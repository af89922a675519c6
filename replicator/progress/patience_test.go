package progress

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sqlwatch/sqlwatch/replicator/store"
	"github.com/sqlwatch/sqlwatch/replicator/store/s3/breaker"
)

// TestPatience_S38: a request that was not sent, because the endpoint answers nobody, is retried
// soon, so that it is sent together with the others; one that was sent and got no answer waits
// longer each time.
func TestPatience_S38(t *testing.T) {
	t.Parallel()
	away := errors.New("connection refused")
	longest := func(err error) (most time.Duration) {
		for range 200 {
			most = max(most, Patience(err, 10))
		}
		return most
	}
	unsent := fmt.Errorf("put: %w: %w", store.ErrUnavailable, &breaker.OpenError{Cause: away})
	if most := longest(unsent); most > time.Second {
		t.Errorf("a request that was not sent is repeated after %v", most)
	}
	if most := longest(fmt.Errorf("put: %w: %w", store.ErrUnavailable, away)); most < 5*time.Second {
		t.Errorf("a request without an answer is repeated after %v", most)
	}
}
