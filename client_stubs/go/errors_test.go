package warmline_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	warmline "github.com/warmline/warmline/client_stubs/go"
	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

func TestAnErrorHasItsKindReasonIDsAndWords(t *testing.T) {
	words := &warmlinev1.UpstreamError{Code: "too_long", Message: "Zu lang."}
	client, _ := serve(t, func(_ int, _ *warmlinev1.StreamTurnRequest, _ stream) error {
		return refusal(codes.FailedPrecondition, "CONTEXT_TOO_LONG", words)
	})
	turn := client.LazySession("s1").Turn(t.Context(), hello, warmline.RequestID("request-1"))
	defer turn.Close()

	_, err := turn.Result()

	var failure *warmline.Error
	if !errors.As(err, &failure) || !errors.Is(err, warmline.ContextTooLong) || errors.Is(err, warmline.Precondition) {
		t.Fatalf("found %v", err)
	}
	if failure.Reason != "CONTEXT_TOO_LONG" || failure.TurnID != "turn-9" || failure.RequestID != "request-1" {
		t.Fatalf("found %+v", failure)
	}
	if failure.Upstream.GetMessage() != "Zu lang." || strings.Contains(failure.Error(), "Zu lang.") {
		t.Fatalf("found %+v: the provider's words are in Upstream alone", failure)
	}
	if failure.Error() != "CONTEXT_TOO_LONG: scripted (turn turn-9)" {
		t.Fatalf("found %q", failure.Error())
	}
	if _, again := turn.Result(); again != err {
		t.Fatalf("found %v again", again)
	}
}
