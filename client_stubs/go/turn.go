package warmline

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// endWait is how long the server may take to end the stream after the last event, before the call is cancelled: the
// outcome is known by then, and a call that ends by itself is not recorded as cancelled at the other end.
const endWait = time.Second

// A Turn is a call, made by [Session.Turn]. It is read by Next, Events, Text or Result, each of which reads on where the
// other stopped, and must be closed. One goroutine uses it at a time; to cancel it from another, cancel its context.
type Turn struct {
	// Request is the message as it is sent; it must not be changed.
	Request *warmlinev1.StreamTurnRequest

	ctx      context.Context
	cancel   context.CancelFunc
	client   *Client
	tries    tries
	stream   grpc.ServerStreamingClient[warmlinev1.StreamTurnResponse]
	sendErr  error
	ready    []*warmlinev1.TurnEvent
	progress *progress
	err      error // What Next returns from now on.
	hasEnded bool  // The stream's status was read, or is no longer waited for.
}

func startTurn(ctx context.Context, client *Client, request *warmlinev1.StreamTurnRequest) *Turn {
	ctx, cancel := context.WithCancel(ctx)
	turn := &Turn{
		Request:  request,
		ctx:      ctx,
		cancel:   cancel,
		client:   client,
		tries:    newTries(client.retry),
		progress: newProgress(request.GetTurnId(), request.GetRequestId()),
	}
	turn.send()
	return turn
}

// Next is the next event that this client knows; io.EOF after the last. An [Error] is final: again, it is the same.
func (t *Turn) Next() (*warmlinev1.TurnEvent, error) {
	for t.err == nil {
		if t.progress.ending != Unfinished {
			t.waitEnd()
			t.err = io.EOF
		} else if len(t.ready) == 0 {
			t.err = t.fill()
		} else {
			event := t.ready[0]
			t.ready = t.ready[1:]
			isKnown, err := t.progress.accept(event)
			if isKnown {
				return event, nil
			}
			t.err = err
		}
	}
	t.cancel()
	return nil, t.err
}

// Events are the events that this client knows. Breaking out of the loop leaves the turn as it is: close it, or read on.
func (t *Turn) Events() iter.Seq2[*warmlinev1.TurnEvent, error] {
	return func(yield func(*warmlinev1.TurnEvent, error) bool) {
		for {
			event, err := t.Next()
			if errors.Is(err, io.EOF) || !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// Text are the pieces of the answer's text, as they come. An error of the kind [TextVoided] says that a resend took back
// pieces that had been given out; the turn goes on, and can be read on by Result or Events.
func (t *Turn) Text() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for event, err := range t.Events() {
			if err == nil && event.GetRestarted() != nil && t.progress.hasVoidedText {
				err = newError(TextVoided, t.progress.known, "read text: a resend took back what was read")
			}
			if err != nil {
				yield("", err)
				return
			}
			if piece, ok := textDelta(event); ok && !yield(piece, nil) {
				return
			}
		}
	}
}

// Result reads the rest and returns the outcome; again, the same.
func (t *Turn) Result() (Result, error) {
	for {
		_, err := t.Next()
		if errors.Is(err, io.EOF) {
			return t.Snapshot(), nil
		}
		if err != nil {
			return t.Snapshot(), err
		}
	}
}

// Snapshot is the outcome so far, also after a failure: what was delivered and counts.
func (t *Turn) Snapshot() Result { return t.progress.snapshot() }

// ID is the turn's id, for its tool follow-ups; blank until the server told the one it made.
func (t *Turn) ID() string { return t.progress.known.turnID }

// Close cancels what still runs, here and at the provider. It may be repeated.
func (t *Turn) Close() {
	if t.progress.ending != Unfinished {
		t.waitEnd()
	}
	t.cancel()
}

func (t *Turn) send() {
	t.stream, t.sendErr = t.client.Turns.StreamTurn(withSession(t.ctx, t.Request.GetSessionId()), t.Request)
}

// fill reads a message; it sends the call again where that is allowed and nothing of it was delivered.
func (t *Turn) fill() error {
	message, err := t.receive()
	if err == nil {
		t.ready = message.GetEvents()
		return nil
	}
	if errors.Is(err, io.EOF) {
		return newError(Protocol, t.progress.known,
			"read turn: found the end of the stream, expected a completed or incomplete event")
	}
	failure := fromStatus(err, t.progress.known)
	if t.progress.sequence > 0 {
		return failure
	}
	if err := t.tries.waitOrFail(t.ctx, failure); err != nil {
		return err
	}
	t.send()
	return nil
}

func (t *Turn) receive() (*warmlinev1.StreamTurnResponse, error) {
	if t.sendErr != nil {
		return nil, t.sendErr
	}
	return t.stream.Recv()
}

// waitEnd lets the server end the stream by itself; however it does, the outcome stands.
func (t *Turn) waitEnd() {
	if t.hasEnded {
		return
	}
	t.hasEnded = true
	timer := time.AfterFunc(endWait, t.cancel)
	defer timer.Stop()
	for {
		if _, err := t.receive(); err != nil {
			return
		}
	}
}
