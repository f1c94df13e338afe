package warmline

import (
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// An Ending is how a turn's events ended.
type Ending string

// The endings.
const (
	Completed  Ending = "completed"
	Incomplete Ending = "incomplete"
	Unfinished Ending = "unfinished" // Only in a snapshot.
)

// A FunctionCall is a function that the model wants called; Arguments is its JSON text.
type FunctionCall struct{ CallID, Name, Arguments string }

// Answer is the item that answers the call.
func (c FunctionCall) Answer(output string) *Item { return FunctionOutput(c.CallID, output) }

// A CustomToolCall is a custom tool that the model wants called; Input is free text.
type CustomToolCall struct{ CallID, Name, Input string }

// Answer is the item that answers the call.
func (c CustomToolCall) Answer(output string) *Item {
	return CustomToolOutput(c.CallID, output)
}

// A Result is a turn's outcome. Blank and nil mean: not told, or not known.
type Result struct {
	Ending Ending
	Text   string // Of the finished messages, then what was streamed of an unfinished one.
	// Items are the finished output items, oldest first: append them to the conversation as they are.
	Items           []*Item
	FunctionCalls   []FunctionCall
	CustomToolCalls []CustomToolCall

	TurnID            string
	RequestID         string
	ConversationID    string
	ResponseID        string
	UpstreamRequestID string // The provider's id of the request; unknown, as always, over a WebSocket.

	Usage            *warmlinev1.Usage
	EndTurn          *bool
	IncompleteReason string // Why the response ended early.
	HistoryPosition  uint64 // Items of the lane's conversation, for a next turn's AppendAt; 0 before the end.

	Attempt       *warmlinev1.AttemptStarted // The newest; never nil.
	Attempts      int                        // Its number.
	FellBack      string                     // Why the call went on over HTTP.
	ServerModel   string                     // The model that really served the request.
	UnknownEvents int                        // Events of a newer server that this client skipped.
	UnknownValues int                        // Enum values of the Attempt that only a newer server knows.
}

// finished is an item that is done; text is a message's, else blank.
type finished struct {
	sequence uint64
	attempt  uint32
	item     []byte
	text     string
}

// openText is what was streamed of a message that is not finished; itemID is blank where it was not told.
type openText struct {
	itemID string
	text   strings.Builder
}

// progress folds the events of one call, in order.
type progress struct {
	known         facts
	sequence      uint64 // Of the newest event; 0: none has come.
	ending        Ending
	hasVoidedText bool

	result   Result
	finished []finished
	open     []*openText // In order of their beginning.
}

func newProgress(turnID, requestID string) *progress {
	return &progress{
		known:  facts{turnID: turnID, requestID: requestID},
		ending: Unfinished,
		result: Result{Attempt: &warmlinev1.AttemptStarted{}},
	}
}

// accept takes the next event and says whether the caller shall see it: not, when this client does not know its member.
// A gap leaves the progress as it was.
func (p *progress) accept(event *warmlinev1.TurnEvent) (bool, error) {
	if event.GetSequence() != p.sequence+1 {
		return false, newError(SequenceGap, p.known,
			"read turn events: event %d came, expected %d", event.GetSequence(), p.sequence+1)
	}
	p.sequence++
	p.known.attempts = max(p.known.attempts, int(event.GetAttempt()))
	if event.GetEvent() == nil {
		p.result.UnknownEvents++
		return false, nil
	}
	p.take(event)
	return true, nil
}

func (p *progress) take(event *warmlinev1.TurnEvent) {
	switch member := event.GetEvent().(type) {
	case *warmlinev1.TurnEvent_Admitted:
		p.known.turnID, p.known.requestID = member.Admitted.GetTurnId(), member.Admitted.GetRequestId()
		p.result.ConversationID = member.Admitted.GetConversationId()
	case *warmlinev1.TurnEvent_AttemptStarted:
		p.result.Attempt = member.AttemptStarted
		p.known.responseID, p.known.upstreamRequestID = "", ""
	case *warmlinev1.TurnEvent_Retrying:
		p.known.responseID = member.Retrying.GetResponseId()
		p.known.upstreamRequestID = member.Retrying.GetUpstreamRequestId()
	case *warmlinev1.TurnEvent_FellBack:
		p.result.FellBack = member.FellBack.GetReason()
	case *warmlinev1.TurnEvent_Restarted:
		p.restart(member.Restarted)
	case *warmlinev1.TurnEvent_Created:
		p.known.responseID = member.Created.GetResponseId()
	case *warmlinev1.TurnEvent_ItemDone:
		p.finish(event, member.ItemDone.GetItem().GetJson())
	case *warmlinev1.TurnEvent_TextDelta:
		p.stream(member.TextDelta.GetItemId(), member.TextDelta.GetDelta())
	case *warmlinev1.TurnEvent_ServerModel:
		p.result.ServerModel = member.ServerModel.GetModel()
	case *warmlinev1.TurnEvent_Completed:
		p.ending, p.result.EndTurn = Completed, member.Completed.EndTurn
		p.end(member.Completed)
	case *warmlinev1.TurnEvent_Incomplete:
		p.ending, p.result.IncompleteReason = Incomplete, member.Incomplete.GetReason()
		p.end(member.Incomplete)
	case *warmlinev1.TurnEvent_Raw:
		p.takeRaw(event)
	}
}

// takeRaw reads what a result needs of events that the caller asked to have raw.
func (p *progress) takeRaw(event *warmlinev1.TurnEvent) {
	var payload struct {
		Item     json.RawMessage `json:"item"`
		ItemID   lenientText     `json:"item_id"`
		Delta    lenientText     `json:"delta"`
		Response json.RawMessage `json:"response"`
	}
	// What cannot be read is left blank: a result must not fail on it.
	_ = json.Unmarshal(event.GetPayloadJson(), &payload)
	switch event.GetUpstreamType() {
	case "response.output_item.done":
		if len(payload.Item) > 0 {
			p.finish(event, payload.Item)
		}
	case "response.output_text.delta":
		p.stream(string(payload.ItemID), string(payload.Delta))
	case "response.created":
		p.known.responseID = string(readOutput(payload.Response).ID)
	}
}

func (p *progress) stream(itemID, delta string) {
	at := slices.IndexFunc(p.open, func(o *openText) bool { return o.itemID == itemID })
	if at < 0 {
		at, p.open = len(p.open), append(p.open, &openText{itemID: itemID})
	}
	p.open[at].text.WriteString(delta)
}

func (p *progress) finish(event *warmlinev1.TurnEvent, item []byte) {
	output := readOutput(item)
	if output.Type == "message" {
		p.open = slices.DeleteFunc(p.open, func(o *openText) bool { return o.itemID == string(output.ID) || o.itemID == "" })
	}
	p.finished = append(p.finished, finished{event.GetSequence(), event.GetAttempt(), item, output.text()})
}

// restart forgets what a resend after output has made void.
func (p *progress) restart(restarted *warmlinev1.Restarted) {
	p.hasVoidedText = p.hasVoidedText || len(p.open) > 0
	p.open = nil
	p.finished = slices.DeleteFunc(p.finished, func(f finished) bool {
		counts := f.attempt >= restarted.GetAttempt() || slices.Contains(restarted.GetKeptItemSequences(), f.sequence)
		p.hasVoidedText = p.hasVoidedText || !counts && f.text != ""
		return !counts
	})
}

// end takes what both last events tell.
func (p *progress) end(last interface {
	GetResponseId() string
	GetUpstreamRequestId() string
	GetUsage() *warmlinev1.Usage
	GetHistoryPosition() uint64
}) {
	if last.GetResponseId() != "" {
		p.known.responseID = last.GetResponseId()
	}
	p.known.upstreamRequestID = last.GetUpstreamRequestId()
	p.result.Usage, p.result.HistoryPosition = last.GetUsage(), last.GetHistoryPosition()
}

// snapshot is the outcome so far; it shares nothing with the progress.
func (p *progress) snapshot() Result {
	result := p.result
	result.Ending, result.Attempts = p.ending, p.known.attempts
	result.TurnID, result.RequestID = p.known.turnID, p.known.requestID
	result.ResponseID, result.UpstreamRequestID = p.known.responseID, p.known.upstreamRequestID
	result.Attempt, result.Usage = proto.CloneOf(result.Attempt), proto.CloneOf(result.Usage)
	var text strings.Builder
	for _, f := range p.finished {
		text.WriteString(f.text)
		result.Items = append(result.Items, JSON(slices.Clone(f.item)))
		switch output := readOutput(f.item); output.Type {
		case "function_call":
			call := FunctionCall{string(output.CallID), string(output.Name), string(output.Arguments)}
			result.FunctionCalls = append(result.FunctionCalls, call)
		case "custom_tool_call":
			call := CustomToolCall{string(output.CallID), string(output.Name), string(output.Input)}
			result.CustomToolCalls = append(result.CustomToolCalls, call)
		}
	}
	for _, open := range p.open {
		text.WriteString(open.text.String())
	}
	result.Text = text.String()
	result.UnknownValues = unknownValues(result.Attempt)
	return result
}

// unknownValues counts the attempt's enum values that this contract does not have.
func unknownValues(attempt *warmlinev1.AttemptStarted) int {
	unknown := 0
	attempt.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if enum := field.Enum(); enum != nil && enum.Values().ByNumber(value.Enum()) == nil {
			unknown++
		}
		return true
	})
	return unknown
}

// textDelta is the piece of the answer's text that an event carries, typed or raw; false for any other event.
func textDelta(event *warmlinev1.TurnEvent) (string, bool) {
	switch member := event.GetEvent().(type) {
	case *warmlinev1.TurnEvent_TextDelta:
		return member.TextDelta.GetDelta(), true
	case *warmlinev1.TurnEvent_Raw:
		if event.GetUpstreamType() == "response.output_text.delta" {
			var payload struct {
				Delta lenientText `json:"delta"`
			}
			_ = json.Unmarshal(event.GetPayloadJson(), &payload)
			return string(payload.Delta), true
		}
	}
	return "", false
}

// output is what is read of a finished item.
type output struct {
	Type      lenientText     `json:"type"`
	ID        lenientText     `json:"id"`
	CallID    lenientText     `json:"call_id"`
	Name      lenientText     `json:"name"`
	Arguments lenientText     `json:"arguments"`
	Input     lenientText     `json:"input"`
	Content   json.RawMessage `json:"content"`
}

// lenientText is a string; of anything else it is blank, because a result must not fail on an item that it cannot read.
type lenientText string

// UnmarshalJSON takes any value.
func (t *lenientText) UnmarshalJSON(value []byte) error {
	var text string
	if json.Unmarshal(value, &text) == nil {
		*t = lenientText(text)
	}
	return nil
}

func readOutput(item []byte) output {
	var read output
	_ = json.Unmarshal(item, &read)
	return read
}

// text is that of a message's parts; blank for any other item.
func (o output) text() string {
	var parts []struct {
		Type lenientText `json:"type"`
		Text lenientText `json:"text"`
	}
	if o.Type != "message" || json.Unmarshal(o.Content, &parts) != nil {
		return ""
	}
	var text strings.Builder
	for _, part := range parts {
		if part.Type == "output_text" {
			text.WriteString(string(part.Text))
		}
	}
	return text.String()
}
