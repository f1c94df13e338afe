package warmline_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	warmline "github.com/warmline/warmline/client_stubs/go"
	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// begins sends the first piece of an answer and then nothing, until the caller leaves.
func begins(t *testing.T) func(int, *warmlinev1.StreamTurnRequest, stream) error {
	return func(_ int, _ *warmlinev1.StreamTurnRequest, stream stream) error {
		send(t, stream, 1, admitted, "half")
		<-stream.Context().Done()
		return stream.Context().Err()
	}
}

// says answers with a whole turn.
func says(t *testing.T, pieces ...any) func(int, *warmlinev1.StreamTurnRequest, stream) error {
	return func(_ int, _ *warmlinev1.StreamTurnRequest, stream stream) error {
		send(t, stream, 1, append(append([]any{admitted}, pieces...), completed)...)
		return nil
	}
}

func TestTurnReadsTextThenResult(t *testing.T) {
	client, _ := serve(t, says(t, "Hello", ", world"))
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	defer turn.Close()

	var pieces []string
	for piece, err := range turn.Text() {
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, piece)
	}
	result, err := turn.Result()

	if err != nil || strings.Join(pieces, "|") != "Hello|, world" || result.Text != "Hello, world" {
		t.Fatalf("found %q, %+v, %v", pieces, result, err)
	}
	if result.Ending != warmline.Completed || result.ResponseID != "resp_1" || turn.ID() != "turn-1" {
		t.Fatalf("found %+v", result)
	}
	if _, err := turn.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("after the end: %v", err)
	}
}

func TestTurnClosedEarlyIsCancelledAtTheServer(t *testing.T) {
	client, served := serve(t, begins(t))
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	for event, err := range turn.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetTextDelta() != nil {
			break
		}
	}

	turn.Close()

	served.waitCancelled(t)
	if _, err := turn.Next(); !errors.Is(err, warmline.TurnCancelled) {
		t.Fatalf("after leaving: %v", err)
	}
}

func TestTurnEndsWithItsContext(t *testing.T) {
	client, served := serve(t, begins(t))
	ctx, cancel := context.WithCancel(t.Context())
	turn := client.LazySession("s1").Turn(ctx, hello)
	defer turn.Close()
	if _, err := turn.Next(); err != nil {
		t.Fatal(err)
	}

	cancel()

	if _, err := turn.Result(); !errors.Is(err, warmline.TurnCancelled) {
		t.Fatalf("found %v", err)
	}
	served.waitCancelled(t)
}

func TestTurnDeadlineIsTheContexts(t *testing.T) {
	client, _ := serve(t, begins(t))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	turn := client.LazySession("s1").Turn(ctx, hello)
	defer turn.Close()

	result, err := turn.Result()

	if !errors.Is(err, warmline.DeadlineExceeded) || result.Ending != warmline.Unfinished {
		t.Fatalf("found %+v, %v", result, err)
	}
}

func TestTurnMissingEventIsAGapAndCancelsTheCall(t *testing.T) {
	client, served := serve(t, func(_ int, _ *warmlinev1.StreamTurnRequest, stream stream) error {
		send(t, stream, 1, admitted)
		send(t, stream, 3, "late")
		<-stream.Context().Done()
		return stream.Context().Err()
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello)

	_, err := turn.Result()

	if !errors.Is(err, warmline.SequenceGap) {
		t.Fatalf("found %v", err)
	}
	served.waitCancelled(t)
}

func TestTurnThatEndsWithoutAnEndIsAProtocolError(t *testing.T) {
	client, _ := serve(t, func(_ int, _ *warmlinev1.StreamTurnRequest, stream stream) error {
		send(t, stream, 1, admitted)
		return nil
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	defer turn.Close()

	if _, err := turn.Result(); !errors.Is(err, warmline.Protocol) {
		t.Fatalf("found %v", err)
	}
}

func TestTurnSucceedsWhateverStatusFollowsCompleted(t *testing.T) {
	client, _ := serve(t, func(call int, request *warmlinev1.StreamTurnRequest, stream stream) error {
		_ = says(t, "done")(call, request, stream)
		return status.Error(codes.Aborted, "late")
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	defer turn.Close()

	if result, err := turn.Result(); err != nil || result.Text != "done" {
		t.Fatalf("found %+v, %v", result, err)
	}
}

func TestTurnThatEndedByItselfIsNotCancelled(t *testing.T) {
	client, served := serve(t, func(call int, request *warmlinev1.StreamTurnRequest, stream stream) error {
		_ = says(t, "done")(call, request, stream)
		select { // Long enough for a cancel to arrive, and far below the second that the client waits.
		case <-stream.Context().Done():
		case <-time.After(50 * time.Millisecond):
		}
		return nil
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	for event, err := range turn.Events() {
		if err != nil {
			t.Fatal(err)
		}
		if event.GetCompleted() != nil {
			break
		}
	}

	turn.Close()

	if err := <-served.ended; err != nil {
		t.Fatalf("the call's context ended with %v", err)
	}
}

func TestTurnWhoseEndIsNotFollowedByAStatusIsCancelled(t *testing.T) {
	client, served := serve(t, func(call int, request *warmlinev1.StreamTurnRequest, stream stream) error {
		_ = says(t, "done")(call, request, stream)
		<-stream.Context().Done()
		return nil
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello)

	if result, err := turn.Result(); err != nil || result.Ending != warmline.Completed {
		t.Fatalf("found %+v, %v", result, err)
	}
	served.waitCancelled(t)
}

func TestTurnIsSentAgainOnlyWhereTheServerSaysSo(t *testing.T) {
	soon := &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Millisecond)}
	for name, refused := range map[string]struct {
		err   error
		calls int
	}{
		"with RetryInfo":          {refusal(codes.Unavailable, "SERVER_DRAINING", soon), 2},
		"without":                 {refusal(codes.Unavailable, "TURN_DRAINED"), 1},
		"not reached":             {status.Error(codes.Unavailable, "gone"), 2},
		"another code":            {status.Error(codes.Aborted, "cut"), 1},
		"rate limit with a delay": {refusal(codes.ResourceExhausted, "UPSTREAM_RATE_LIMITED", soon), 2},
	} {
		t.Run(name, func(t *testing.T) {
			ids := map[string]bool{}
			client, served := serve(t, func(call int, request *warmlinev1.StreamTurnRequest, stream stream) error {
				ids[request.GetRequestId()] = true
				if call == 1 {
					return refused.err
				}
				return says(t, "again")(call, request, stream)
			})
			turn := client.LazySession("s1").Turn(t.Context(), hello)
			defer turn.Close()

			_, err := turn.Result()

			if served.calls != refused.calls || (err == nil) != (refused.calls == 2) || len(ids) != 1 || ids[""] {
				t.Fatalf("found %d calls, %v, request ids %v", served.calls, err, ids)
			}
		})
	}
}

func TestTurnIsNotSentAgainAfterAnEvent(t *testing.T) {
	client, served := serve(t, func(_ int, _ *warmlinev1.StreamTurnRequest, stream stream) error {
		send(t, stream, 1, admitted)
		return status.Error(codes.Unavailable, "gone")
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	defer turn.Close()

	_, err := turn.Result()

	if !errors.Is(err, warmline.Unavailable) || served.calls != 1 {
		t.Fatalf("found %d calls, %v", served.calls, err)
	}
}

func TestTextTellsWhatAResendTookBackAndTheTurnGoesOn(t *testing.T) {
	client, _ := serve(t, says(t, "void", &warmlinev1.Restarted{Attempt: 2}, "anew"))
	turn := client.LazySession("s1").Turn(t.Context(), hello)
	defer turn.Close()

	var failure error
	for _, err := range turn.Text() {
		failure = err
	}
	result, err := turn.Result()

	if !errors.Is(failure, warmline.TextVoided) || err != nil || result.Text != "anew" {
		t.Fatalf("found %v, then %+v, %v", failure, result, err)
	}
}
