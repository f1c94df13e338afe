package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	warmline "github.com/warmline/warmline/client_stubs/go"
	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// turn is a turn that was sent, and what its caller was given.
type turn struct {
	*warmline.Turn
	release  context.CancelFunc // Of the deadline's timer.
	sent     []*warmlinev1.Item
	events   map[string]int
	payloads int
}

type runner struct {
	client   *warmline.Client
	control  string
	sessions map[string]*warmline.Session
	leave    []string // Sessions to close at the end.
	turns    map[string]*turn
}

func (r *runner) play(ctx context.Context, steps []map[string]json.RawMessage) error {
	verbs := map[string]func(context.Context, json.RawMessage) error{
		"session": r.session, "turn": r.turn, "read_until": r.readUntil, "expect_result": r.expectResult,
		"expect_error": r.expectError, "cancel": r.cancel, "cancel_turn": r.cancelTurn, "preconnect": r.preconnect,
		"close": r.closeSession, "control": r.act,
	}
	for number, step := range steps {
		for verb, fields := range step {
			play, known := verbs[verb]
			if !known {
				return fmt.Errorf("step %d: unknown verb %s", number+1, verb)
			}
			if err := play(ctx, fields); err != nil {
				return fmt.Errorf("step %d %s: %w", number+1, verb, err)
			}
		}
	}
	return nil
}

// close leaves every turn that is still open, and closes the sessions that are to be closed.
func (r *runner) close() {
	for _, turn := range r.turns {
		turn.Close()
		turn.release()
	}
	for _, id := range r.leave {
		_ = r.sessions[id].Close(context.Background())
	}
}

func (r *runner) results() object {
	results := object{}
	for name, turn := range r.turns {
		results[name] = resultObject(turn)
	}
	return results
}

type options struct {
	Model             *string
	Instructions      *string
	Tools             []json.RawMessage
	ParallelToolCalls *bool   `json:"parallel_tool_calls"`
	ReasoningEffort   *string `json:"reasoning_effort"`
	ReasoningSummary  *string `json:"reasoning_summary"`
	MaxOutputTokens   *int32  `json:"max_output_tokens"`
}

func (o options) made() []warmline.RequestOption {
	var made []warmline.RequestOption
	made = optional(made, o.Model, warmline.Model)
	made = optional(made, o.Instructions, warmline.Instructions)
	made = optional(made, o.ParallelToolCalls, warmline.ParallelToolCalls)
	made = optional(made, o.ReasoningEffort, warmline.ReasoningEffort)
	made = optional(made, o.ReasoningSummary, warmline.ReasoningSummary)
	made = optional(made, o.MaxOutputTokens, warmline.MaxOutputTokens)
	if o.Tools != nil {
		made = append(made, warmline.Tools(o.Tools...))
	}
	return made
}

func optional[T, Option any](options []Option, value *T, make func(T) Option) []Option {
	if value == nil {
		return options
	}
	return append(options, make(*value))
}

func (r *runner) session(ctx context.Context, fields json.RawMessage) error {
	var s struct {
		options
		ID, Start, Upstream string
		CloseOnExit         bool   `json:"close_on_exit"`
		WarmUp              string `json:"warm_up"`
		HTTPOnly            bool   `json:"http_only"`
		StreamMaxRetries    *int32 `json:"stream_max_retries"`
		MaxLanes            *int32 `json:"max_lanes"`
		Error               object
	}
	if err := strict(fields, &s); err != nil {
		return err
	}
	config := &warmlinev1.SessionConfig{Upstream: s.Upstream}
	config.WarmUp = warmlinev1.WarmUpMode(value(warmlinev1.WarmUpMode_value, "WARM_UP_MODE_", s.WarmUp))
	if s.HTTPOnly {
		config.FallbackPolicy = &warmlinev1.FallbackPolicy{HttpOnly: true}
	}
	if s.StreamMaxRetries != nil {
		config.RetryPolicy = &warmlinev1.RetryPolicy{StreamMaxRetries: s.StreamMaxRetries}
	}
	if s.MaxLanes != nil {
		config.Limits = &warmlinev1.SessionLimits{MaxLanes: s.MaxLanes}
	}
	options := []warmline.SessionOption{warmline.Config(config)}
	for _, option := range s.made() {
		options = append(options, option)
	}
	if s.CloseOnExit {
		r.leave = append(r.leave, s.ID)
	}
	switch s.Start {
	case "", "now":
		made, err := r.client.Session(ctx, s.ID, options...)
		r.sessions[s.ID] = made
		return expecting(err, s.Error)
	case "lazy":
		r.sessions[s.ID] = r.client.LazySession(s.ID, options...)
	case "attach":
		r.sessions[s.ID] = r.client.AttachSession(s.ID)
	default:
		return fmt.Errorf("unknown start %s", s.Start)
	}
	return nil
}

func (r *runner) turn(ctx context.Context, fields json.RawMessage) error {
	var t struct {
		options
		As, Session, Lane, Retry, Events string
		Input                            []any
		TurnID                           string          `json:"turn_id"`
		RequestID                        string          `json:"request_id"`
		OnBusy                           string          `json:"on_busy"`
		AppendAt                         any             `json:"append_at"`
		MaxDurationS                     float64         `json:"max_duration_s"`
		TimeoutS                         float64         `json:"timeout_s"`
		RequestJSON                      json.RawMessage `json:"request_json"`
	}
	if err := strict(fields, &t); err != nil {
		return err
	}
	var sent []*warmlinev1.Item
	for _, item := range t.Input {
		made, err := r.items(item)
		if err != nil {
			return err
		}
		sent = append(sent, made...)
	}
	options := []warmline.TurnOption{
		warmline.TurnID(t.TurnID), warmline.Lane(t.Lane), warmline.RequestJSON(t.RequestJSON),
		warmline.Resend(warmlinev1.RetryMode(value(warmlinev1.RetryMode_value, "RETRY_MODE_", t.Retry))),
		warmline.OnBusy(warmlinev1.BusyMode(value(warmlinev1.BusyMode_value, "BUSY_MODE_", t.OnBusy))),
		warmline.Events(warmlinev1.EventMode(value(warmlinev1.EventMode_value, "EVENT_MODE_", t.Events))),
		warmline.RequestID(t.RequestID),
	}
	for _, option := range t.made() {
		options = append(options, option)
	}
	switch position := t.AppendAt.(type) {
	case float64:
		options = append(options, warmline.AppendAt(uint64(position)))
	case object:
		options = append(options, warmline.AppendAt(r.turns[position["position_of"].(string)].Snapshot().HistoryPosition))
	}
	if t.MaxDurationS > 0 {
		options = append(options, warmline.MaxDuration(seconds(t.MaxDurationS)))
	}
	release := func() {}
	if t.TimeoutS > 0 {
		ctx, release = context.WithTimeout(ctx, seconds(t.TimeoutS))
	}
	started := r.sessions[t.Session].Turn(ctx, sent, options...)
	r.turns[t.As] = &turn{Turn: started, release: release, sent: sent, events: map[string]int{}}
	return nil
}

// items makes those that one item of the scenario stands for.
func (r *runner) items(item any) ([]*warmlinev1.Item, error) {
	switch item := item.(type) {
	case string:
		return []*warmlinev1.Item{warmline.User(item)}, nil
	case object:
		for kind, value := range item {
			switch kind {
			case "developer":
				return []*warmlinev1.Item{warmline.Developer(value.(string))}, nil
			case "function_output":
				output := value.(object)
				made := warmline.FunctionOutput(output["call_id"].(string), output["output"].(string))
				return []*warmlinev1.Item{made}, nil
			case "json":
				return []*warmlinev1.Item{warmline.JSON([]byte(value.(string)))}, nil
			case "conversation_of":
				turn := r.turns[value.(string)]
				return append(turn.sent[:len(turn.sent):len(turn.sent)], turn.Snapshot().Items...), nil
			}
		}
	}
	return nil, fmt.Errorf("unknown item %v", item)
}

// read reads to the n-th event of that name, or to the end where it is blank.
func (t *turn) read(event string, count int) error {
	for found, err := range t.Events() {
		if err != nil {
			return err
		}
		kind := memberName(found)
		t.events[kind]++
		if found.PayloadJson != nil {
			t.payloads++
		}
		if kind == event {
			if count--; count == 0 {
				return nil
			}
		}
	}
	if event != "" {
		return fmt.Errorf("the turn ended before %s; there were %v", event, t.events)
	}
	return nil
}

func (r *runner) readUntil(_ context.Context, fields json.RawMessage) error {
	step := struct {
		Turn, Event string
		Count       int
	}{Count: 1}
	if err := strict(fields, &step); err != nil {
		return err
	}
	return r.turns[step.Turn].read(step.Event, step.Count)
}

func (r *runner) expectResult(_ context.Context, fields json.RawMessage) error {
	expected, turn, err := r.expectation(fields)
	if err != nil {
		return err
	}
	if err := turn.read("", 0); err != nil {
		return err
	}
	return compare(resultObject(turn), expected, "")
}

func (r *runner) expectError(_ context.Context, fields json.RawMessage) error {
	expected, turn, err := r.expectation(fields)
	if err != nil {
		return err
	}
	snapshot := expected["snapshot"]
	delete(expected, "snapshot")
	if err := expecting(turn.read("", 0), expected); err != nil {
		return err
	}
	if snapshot == nil {
		return nil
	}
	return compare(resultObject(turn), snapshot, "snapshot")
}

// expectation takes a step's turn from what is expected of it.
func (r *runner) expectation(fields json.RawMessage) (object, *turn, error) {
	var expected object
	if err := strict(fields, &expected); err != nil {
		return nil, nil, err
	}
	name, _ := expected["turn"].(string)
	delete(expected, "turn")
	turn, found := r.turns[name]
	if !found {
		return nil, nil, fmt.Errorf("no turn %q", name)
	}
	return expected, turn, nil
}

func (r *runner) cancel(ctx context.Context, fields json.RawMessage) error {
	var step struct{ Turn string }
	if err := strict(fields, &step); err != nil {
		return err
	}
	if _, err := r.post(ctx, "/mark/cancel"); err != nil {
		return err
	}
	r.turns[step.Turn].Close()
	return nil
}

func (r *runner) cancelTurn(ctx context.Context, fields json.RawMessage) error {
	var step struct {
		Session   string
		RequestID string `json:"request_id"`
		TurnID    string `json:"turn_id"`
		Expect    []any
		Error     object
	}
	if err := strict(fields, &step); err != nil {
		return err
	}
	ids, err := r.sessions[step.Session].CancelTurn(ctx, step.RequestID, step.TurnID)
	if err := expecting(err, step.Error); err != nil || step.Expect == nil {
		return err
	}
	found := []any{}
	for _, id := range ids {
		found = append(found, id)
	}
	return compare(found, step.Expect, "request_ids")
}

func (r *runner) preconnect(ctx context.Context, fields json.RawMessage) error {
	var step struct {
		Session string
		Expect  any
		Error   object
	}
	if err := strict(fields, &step); err != nil {
		return err
	}
	slot, err := r.sessions[step.Session].Preconnect(ctx, true)
	if err := expecting(err, step.Error); err != nil || step.Expect == nil {
		return err
	}
	return compare(strings.TrimPrefix(slot.GetState().String(), "SLOT_STATE_"), step.Expect, "slot")
}

func (r *runner) closeSession(ctx context.Context, fields json.RawMessage) error {
	var step struct {
		Session string
		Error   object
	}
	if err := strict(fields, &step); err != nil {
		return err
	}
	return expecting(r.sessions[step.Session].Close(ctx), step.Error)
}

func (r *runner) act(ctx context.Context, fields json.RawMessage) error {
	var step struct {
		Path   string
		Expect any
	}
	if json.Unmarshal(fields, &step.Path) != nil {
		if err := strict(fields, &step); err != nil {
			return err
		}
	}
	found, err := r.post(ctx, step.Path)
	if err != nil || step.Expect == nil {
		return err
	}
	return compare(found, step.Expect, "")
}

var loopback = &http.Client{Transport: &http.Transport{}}

func (r *runner) post(ctx context.Context, path string) (any, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.control+path, nil)
	if err != nil {
		return nil, err
	}
	response, err := loopback.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("control %s: %s: %s", path, response.Status, body)
	}
	var found any
	return found, json.Unmarshal(body, &found)
}

// expecting compares the error of a call with the expected one; nil: the call shall succeed.
func expecting(err error, expected object) error {
	if expected == nil {
		return err
	}
	var failure *warmline.Error
	if !errors.As(err, &failure) {
		return fmt.Errorf("found %v, expected the error %v", err, expected)
	}
	return compare(errorObject(failure), expected, "")
}

// strict reads JSON and refuses fields that the target does not have.
func strict(text []byte, target any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(target)
}

// value is that of an enum's name in lower case, 0 for a blank one.
func value(values map[string]int32, prefix, name string) int32 {
	if name == "" {
		return 0
	}
	number, known := values[prefix+strings.ToUpper(name)]
	if !known {
		panic(fmt.Sprintf("scenario: no %s%s", prefix, strings.ToUpper(name)))
	}
	return number
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
