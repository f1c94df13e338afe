package warmline

import (
	"encoding/json"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// A SessionOption says something about a session.
type SessionOption interface {
	applySession(config *warmlinev1.SessionConfig)
}

// A TurnOption says something about one turn.
type TurnOption interface {
	applyTurn(request *warmlinev1.StreamTurnRequest)
}

// A RequestOption is a default of a session's turns, or overrides it for one turn.
type RequestOption func(*warmlinev1.RequestOptions)

func (o RequestOption) applySession(config *warmlinev1.SessionConfig) {
	if config.RequestDefaults == nil {
		config.RequestDefaults = &warmlinev1.RequestOptions{}
	}
	o(config.RequestDefaults)
}

func (o RequestOption) applyTurn(request *warmlinev1.StreamTurnRequest) {
	if request.Options == nil {
		request.Options = &warmlinev1.RequestOptions{}
	}
	o(request.Options)
}

// Model names the model.
func Model(slug string) RequestOption {
	return func(o *warmlinev1.RequestOptions) { o.Model = &slug }
}

// Instructions are the system's.
func Instructions(text string) RequestOption {
	return func(o *warmlinev1.RequestOptions) { o.Instructions = &text }
}

// Tools are those that the model may call, each one JSON object; none removes the session's.
func Tools(tools ...json.RawMessage) RequestOption {
	list := &warmlinev1.ToolList{}
	for _, tool := range tools {
		list.ToolsJson = append(list.ToolsJson, tool)
	}
	return func(o *warmlinev1.RequestOptions) { o.Tools = list }
}

// ParallelToolCalls says whether the model may call several tools at once.
func ParallelToolCalls(allowed bool) RequestOption {
	return func(o *warmlinev1.RequestOptions) { o.ParallelToolCalls = &allowed }
}

// ReasoningEffort is "none", "minimal", "low", "medium", "high" or what the model knows.
func ReasoningEffort(effort string) RequestOption {
	return func(o *warmlinev1.RequestOptions) { reasoning(o).Effort = &effort }
}

// ReasoningSummary is "auto", "concise" or "detailed".
func ReasoningSummary(summary string) RequestOption {
	return func(o *warmlinev1.RequestOptions) { reasoning(o).Summary = &summary }
}

// MaxOutputTokens bounds one response, reasoning included.
func MaxOutputTokens(n int32) RequestOption {
	return func(o *warmlinev1.RequestOptions) { o.MaxOutputTokens = &n }
}

func reasoning(o *warmlinev1.RequestOptions) *warmlinev1.Reasoning {
	if o.Reasoning == nil {
		o.Reasoning = &warmlinev1.Reasoning{}
	}
	return o.Reasoning
}

type sessionOption func(*warmlinev1.SessionConfig)

func (o sessionOption) applySession(config *warmlinev1.SessionConfig) { o(config) }

// Config is a session's whole config, merged over what was said before it.
func Config(config *warmlinev1.SessionConfig) SessionOption {
	return sessionOption(func(c *warmlinev1.SessionConfig) { proto.Merge(c, config) })
}

// Upstream names the provider, one that the server's operator configured.
func Upstream(name string) SessionOption {
	return sessionOption(func(c *warmlinev1.SessionConfig) { c.Upstream = name })
}

// WarmUp says what opens before the first turn.
func WarmUp(mode warmlinev1.WarmUpMode) SessionOption {
	return sessionOption(func(c *warmlinev1.SessionConfig) { c.WarmUp = mode })
}

type turnOption func(*warmlinev1.StreamTurnRequest)

func (o turnOption) applyTurn(request *warmlinev1.StreamTurnRequest) { o(request) }

// Request changes the message as it is sent, for everything that has no option of its own.
func Request(change func(*warmlinev1.StreamTurnRequest)) TurnOption { return turnOption(change) }

// TurnID is the same for a user request and all its tool follow-ups; without it the server makes one.
func TurnID(id string) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.TurnId = id })
}

// RequestID names this call, also when the client sends it again; without it one is made.
func RequestID(id string) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.RequestId = id })
}

// Lane is an independent chain of calls inside the session.
func Lane(name string) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.Lane = name })
}

// AppendAt says that the input is only what is new, after this many items of the lane ([Result.HistoryPosition]).
func AppendAt(position uint64) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) {
		r.InputMode = warmlinev1.InputMode_INPUT_MODE_APPEND
		r.ExpectedHistoryPosition = &position
	})
}

// Resend says what the server sends to the provider again after a failure.
func Resend(mode warmlinev1.RetryMode) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.Retry = mode })
}

// OnBusy says what happens when the lane has a running call.
func OnBusy(mode warmlinev1.BusyMode) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.OnBusy = mode })
}

// Events says in which form the provider's events come.
func Events(mode warmlinev1.EventMode) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.Events = mode })
}

// MaxDuration is a limit that the server keeps; the context's deadline is the client's own.
func MaxDuration(d time.Duration) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.MaxDuration = durationpb.New(d) })
}

// RequestJSON has further fields of the request body, one JSON object, merged beneath the options.
func RequestJSON(fields []byte) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.RequestJson = fields })
}

// TurnMetadata is the turn's metadata for the provider, one JSON object.
func TurnMetadata(metadata []byte) TurnOption {
	return turnOption(func(r *warmlinev1.StreamTurnRequest) { r.TurnMetadataJson = metadata })
}
