package warmline_test

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/trace"

	warmline "github.com/warmline/warmline/client_stubs/go"
	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

func TestATokenGoesInPlainTextToThisMachineOnly(t *testing.T) {
	for target, allowed := range map[string]bool{
		"127.0.0.1:1": true, "127.9.9.9:1": true, "localhost:1": true, "[::1]:1": true, "unix:/tmp/s": true,
		"dns:///localhost:1": true, "10.0.0.1:1": false, "warmline.example:1": false, "localhost.example:1": false,
		"127.0.0.1.example:1": false,
	} {
		client, err := warmline.NewClient(target, warmline.WithToken("secret"))
		if (err == nil) != allowed {
			t.Errorf("%s: found %v, expected allowed %v", target, err, allowed)
		}
		if client != nil {
			client.Close()
		}
	}
	client, err := warmline.NewClient("10.0.0.1:1", warmline.WithToken("secret"), warmline.WithPlaintextToken())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
}

func TestEveryCallCarriesTokenTraceAndSession(t *testing.T) {
	client, served := serve(t, says(t, "hi"), warmline.WithToken(" secret\n"))
	span := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	})
	ctx := trace.ContextWithSpanContext(t.Context(), span)

	session, err := client.Session(ctx, "s1")
	if err != nil {
		t.Fatal(err)
	}
	turn := session.Turn(ctx, hello)
	defer turn.Close()
	if _, err := turn.Result(); err != nil {
		t.Fatal(err)
	}
	_, err = client.Turns.CancelTurn(ctx, &warmlinev1.CancelTurnRequest{SessionId: "s1"})
	if err == nil {
		t.Fatal("the fake has no CancelTurn")
	}

	for range 2 {
		carried := <-served.metadata
		for key, expected := range map[string]string{
			"authorization":      "Bearer secret",
			"x-warmline-session": "s1",
			"traceparent":        "00-01000000000000000000000000000000-0200000000000000-01",
		} {
			if found := carried.Get(key); len(found) != 1 || found[0] != expected {
				t.Errorf("%s: found %q, expected %q", key, found, expected)
			}
		}
	}
}

func TestWithoutASpanNoTraceIsSent(t *testing.T) {
	client, served := serve(t, says(t, "hi"))
	if _, err := client.Session(t.Context(), "s1"); err != nil {
		t.Fatal(err)
	}
	if carried := <-served.metadata; len(carried.Get("traceparent")) != 0 || len(carried.Get("authorization")) != 0 {
		t.Fatalf("found %v", carried)
	}
}

func TestATokenThatCannotBeHadOrSentFailsTheCallWithoutTheToken(t *testing.T) {
	gone := errors.New("vault is sealed")
	for name, source := range map[string]warmline.TokenSource{
		"had":  func(context.Context) (string, error) { return "", gone },
		"sent": func(context.Context) (string, error) { return "sec\nret", nil },
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, says(t, "hi"), warmline.WithTokenSource(source))

			_, err := client.Session(t.Context(), "s1")

			var failure *warmline.Error
			if !errors.As(err, &failure) || failure.Kind != warmline.Unauthenticated || (name == "had") != errors.Is(err, gone) {
				t.Fatalf("found %v", err)
			}
			turn := client.LazySession("s1").Turn(t.Context(), hello)
			defer turn.Close()
			if _, err := turn.Result(); !errors.Is(err, warmline.Unauthenticated) {
				t.Fatalf("found %v", err)
			}
		})
	}
}

func TestAnAttachedSessionSendsNoConfig(t *testing.T) {
	client, _ := serve(t, func(call int, request *warmlinev1.StreamTurnRequest, stream stream) error {
		if (request.SessionConfig != nil) != (request.GetSessionId() == "made") {
			t.Errorf("session %s: found config %v", request.GetSessionId(), request.SessionConfig)
		}
		return says(t, "hi")(call, request, stream)
	})
	for _, session := range []*warmline.Session{client.AttachSession("other"), client.LazySession("made")} {
		turn := session.Turn(t.Context(), hello)
		if _, err := turn.Result(); err != nil {
			t.Fatal(err)
		}
		turn.Close()
	}
}
