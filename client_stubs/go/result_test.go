package warmline

import (
	"testing"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

func messageDone(sequence uint64, attempt uint32, item string) *warmlinev1.TurnEvent {
	done := &warmlinev1.ItemDone{Item: JSON([]byte(item))}
	return &warmlinev1.TurnEvent{Sequence: sequence, Attempt: attempt, Event: &warmlinev1.TurnEvent_ItemDone{ItemDone: done}}
}

func delta(sequence uint64, itemID, text string) *warmlinev1.TurnEvent {
	piece := &warmlinev1.TextDelta{ItemId: itemID, Delta: text}
	return &warmlinev1.TurnEvent{Sequence: sequence, Attempt: 1, Event: &warmlinev1.TurnEvent_TextDelta{TextDelta: piece}}
}

func raw(sequence uint64, upstreamType, payload string) *warmlinev1.TurnEvent {
	return &warmlinev1.TurnEvent{
		Sequence: sequence, Attempt: 1, UpstreamType: upstreamType, PayloadJson: []byte(payload),
		Event: &warmlinev1.TurnEvent_Raw{Raw: &warmlinev1.RawEvent{}},
	}
}

const greeting = `{"id":"m1","type":"message",  "content":[{"type":"output_text","text":"Hi"},{"type":"refusal","text":"no"}]}`

func fold(t *testing.T, events ...*warmlinev1.TurnEvent) (*progress, Result) {
	t.Helper()
	folded := newProgress("turn", "request")
	for _, event := range events {
		if _, err := folded.accept(event); err != nil {
			t.Fatal(err)
		}
	}
	return folded, folded.snapshot()
}

func TestAFinishedMessageTakesThePlaceOfItsPieces(t *testing.T) {
	_, result := fold(t, delta(1, "m1", "H"), delta(2, "m2", "later"), messageDone(3, 1, greeting))
	if result.Text != "Hilater" || string(result.Items[0].GetJson()) != greeting {
		t.Fatalf("found %+v", result)
	}
}

func TestRawEventsMakeTheSameResult(t *testing.T) {
	_, result := fold(t,
		raw(1, "response.created", `{"response":{"id":"resp_1"}}`),
		raw(2, "response.output_text.delta", `{"item_id":"m1","delta":"H"}`),
		raw(3, "response.output_item.done", `{"item":`+greeting+`}`),
		raw(4, "response.output_text.delta", `{"item_id":"m3","delta":"!"}`),
		raw(5, "response.output_text.delta", `not JSON`),
		raw(6, "response.output_item.done", `{"item":{"type":"function_call","call_id":"c","name":"n","arguments":"{}"}}`),
		raw(7, "response.output_item.done", `{"item":{"type":"custom_tool_call","call_id":"c","name":7,"input":"i"}}`),
	)
	if result.Text != "Hi!" || result.ResponseID != "resp_1" || string(result.Items[0].GetJson()) != greeting {
		t.Fatalf("found %+v", result)
	}
	if result.FunctionCalls[0] != (FunctionCall{"c", "n", "{}"}) || result.CustomToolCalls[0] != (CustomToolCall{"c", "", "i"}) {
		t.Fatalf("found %+v", result)
	}
}

func TestARestartKeepsTheNamedItemsAlone(t *testing.T) {
	restarted := &warmlinev1.Restarted{Attempt: 2, KeptItemSequences: []uint64{1}}
	reasoning := `{"type":"reasoning","id":"r"}`
	folded, result := fold(t, messageDone(1, 1, reasoning), messageDone(2, 1, greeting),
		&warmlinev1.TurnEvent{Sequence: 3, Attempt: 2, Event: &warmlinev1.TurnEvent_Restarted{Restarted: restarted}},
		messageDone(4, 2, greeting))
	if len(result.Items) != 2 || string(result.Items[0].GetJson()) != reasoning || result.Text != "Hi" {
		t.Fatalf("found %+v", result)
	}
	if !folded.hasVoidedText {
		t.Fatal("the first message's text is void")
	}
}

func TestARestartKeepsWhatItsOwnAttemptFinished(t *testing.T) {
	restarted := &warmlinev1.Restarted{Attempt: 2}
	_, result := fold(t, messageDone(1, 2, greeting),
		&warmlinev1.TurnEvent{Sequence: 2, Attempt: 2, Event: &warmlinev1.TurnEvent_Restarted{Restarted: restarted}})
	if len(result.Items) != 1 {
		t.Fatalf("found %+v", result)
	}
}

func TestAMessageTakesThePlaceOfPiecesOfNoKnownItem(t *testing.T) {
	if _, result := fold(t, delta(1, "", "H"), messageDone(2, 1, greeting)); result.Text != "Hi" {
		t.Fatalf("found %+v", result)
	}
}

func TestANewAttemptHasNoIDsYet(t *testing.T) {
	id := "req_1"
	_, result := fold(t,
		raw(1, "response.created", `{"response":{"id":"resp_1"}}`),
		&warmlinev1.TurnEvent{Sequence: 2, Attempt: 1, Event: &warmlinev1.TurnEvent_Retrying{
			Retrying: &warmlinev1.Retrying{ResponseId: "resp_1", UpstreamRequestId: &id}}},
		&warmlinev1.TurnEvent{Sequence: 3, Attempt: 2, Event: &warmlinev1.TurnEvent_AttemptStarted{
			AttemptStarted: &warmlinev1.AttemptStarted{}}})
	if result.ResponseID != "" || result.UpstreamRequestID != "" || result.Attempts != 2 {
		t.Fatalf("found %+v", result)
	}
}

func TestADoubledEventIsAGapAndChangesNothing(t *testing.T) {
	folded, before := fold(t, delta(1, "m", "once"))
	if _, err := folded.accept(delta(1, "m", "twice")); err == nil || folded.snapshot().Text != before.Text {
		t.Fatalf("found %v, %+v", err, folded.snapshot())
	}
}

func TestARestartThatTakesNoTextBackVoidsNone(t *testing.T) {
	restarted := &warmlinev1.Restarted{Attempt: 2}
	folded, result := fold(t, messageDone(1, 1, `{"type":"reasoning"}`),
		&warmlinev1.TurnEvent{Sequence: 2, Attempt: 2, Event: &warmlinev1.TurnEvent_Restarted{Restarted: restarted}})
	if folded.hasVoidedText || len(result.Items) != 0 {
		t.Fatalf("found %+v", result)
	}
}

func TestASnapshotStaysAsItWas(t *testing.T) {
	folded, before := fold(t, messageDone(1, 1, greeting))
	before.Items[0].GetJson()[0] = 'x'
	if after := folded.snapshot(); string(after.Items[0].GetJson()) != greeting {
		t.Fatalf("found %s", after.Items[0].GetJson())
	}
}

func TestValuesOfANewerServerAreCountedAndStayNumbers(t *testing.T) {
	started := &warmlinev1.AttemptStarted{Transport: 77, SlotOutcome: 99, FullReason: 1}
	_, result := fold(t,
		&warmlinev1.TurnEvent{Sequence: 1, Event: &warmlinev1.TurnEvent_AttemptStarted{AttemptStarted: started}})
	if result.UnknownValues != 2 || result.Attempt.GetTransport() != 77 {
		t.Fatalf("found %+v", result)
	}
}

func TestAnUnknownMemberIsCountedAndNotShown(t *testing.T) {
	folded := newProgress("turn", "request")
	isKnown, err := folded.accept(&warmlinev1.TurnEvent{Sequence: 1})
	if isKnown || err != nil || folded.snapshot().UnknownEvents != 1 {
		t.Fatalf("found %v %v", isKnown, err)
	}
}
