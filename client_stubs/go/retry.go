package warmline

import (
	"context"
	"math/rand/v2"
	"time"
)

// Retry limits the client's own resends of one call; the server's are not its concern.
//
// A call is sent again only before anything of it was delivered, and only where the server said so (RetryInfo) or was
// not reached at all (UNAVAILABLE without ErrorInfo).
type Retry struct {
	MaxTries    int           // Sends of one call, the first included; 1: never again.
	FirstWait   time.Duration // Before the first resend to a server that was not reached; doubled each time.
	LongestWait time.Duration // Longest of those waits.
	TotalWait   time.Duration // Most waiting of one call; a wait that would pass it, or the deadline, is not begun.
}

// DefaultRetry bridges a server's restart of some seconds.
var DefaultRetry = Retry{
	MaxTries: 8, FirstWait: 100 * time.Millisecond, LongestWait: 2 * time.Second, TotalWait: 30 * time.Second,
}

// wait decides about a call that failed: how long to wait before the next send, false when the error is final.
// tries and waited are those so far, remaining is the time until the deadline, jitter is from 0 to below 1.
func (r Retry) wait(err *Error, tries int, waited, remaining time.Duration, jitter float64) (time.Duration, bool) {
	var wait time.Duration
	switch {
	case err.RetryAfter != nil:
		wait = *err.RetryAfter + time.Duration(jitter*float64(r.FirstWait))
	case err.isTransportFailure:
		wait = r.LongestWait
		// Doubling by shift is only tried where it stays below the longest wait.
		if doublings := tries - 1; doublings < 32 {
			wait = min(wait, r.FirstWait<<doublings)
		}
		wait = time.Duration(float64(wait) * (0.5 + 0.5*jitter))
	default:
		return 0, false
	}
	if tries >= r.MaxTries || waited+wait > r.TotalWait || wait >= remaining {
		return 0, false
	}
	return wait, true
}

// tries counts the sends of one call and waits between them.
type tries struct {
	retry  Retry
	count  int
	waited time.Duration
}

func newTries(retry Retry) tries {
	return tries{retry: retry, count: 1}
}

// waitOrFail waits before the next send, or returns the error when there shall be none.
func (t *tries) waitOrFail(ctx context.Context, err *Error) error {
	remaining := time.Duration(1<<63 - 1)
	if deadline, bounded := ctx.Deadline(); bounded {
		remaining = time.Until(deadline)
	}
	wait, again := t.retry.wait(err, t.count, t.waited, remaining, rand.Float64())
	if !again {
		return err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fromStatus(ctx.Err(), err.facts())
	case <-timer.C:
	}
	t.count++
	t.waited += wait
	return nil
}
