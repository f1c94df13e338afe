package warmline

import (
	"testing"
	"time"
)

func TestRetryDecides(t *testing.T) {
	const long = time.Hour
	told := func(d time.Duration) *Error { return &Error{RetryAfter: &d} }
	lost := &Error{isTransportFailure: true}
	for name, c := range map[string]struct {
		err               *Error
		tries             int
		waited, remaining time.Duration
		jitter            float64
		wait              time.Duration
		again             bool
	}{
		"told":                      {told(time.Second), 1, 0, long, 0.5, 1050 * time.Millisecond, true},
		"told nothing":              {&Error{}, 1, 0, long, 0, 0, false},
		"lost, first":               {lost, 1, 0, long, 0, 50 * time.Millisecond, true},
		"lost, with all its jitter": {lost, 1, 0, long, 1, 100 * time.Millisecond, true},
		"lost, doubled":             {lost, 3, 0, long, 1, 400 * time.Millisecond, true},
		"lost, at the longest":      {lost, 7, 0, long, 1, 2 * time.Second, true},
		"tries used up":             {lost, 8, 0, long, 0, 0, false},
		"waiting used up":           {told(11 * time.Second), 2, 20 * time.Second, long, 0, 0, false},
		"beyond the deadline":       {told(time.Second), 1, 0, time.Second, 0, 0, false},
		"just before it":            {told(time.Second), 1, 0, time.Second + 1, 0, time.Second, true},
	} {
		wait, again := DefaultRetry.wait(c.err, c.tries, c.waited, c.remaining, c.jitter)
		if wait != c.wait || again != c.again {
			t.Errorf("%s: found %v %v, expected %v %v", name, wait, again, c.wait, c.again)
		}
	}
}
