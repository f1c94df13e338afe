package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// A Plan says what one run does. Times are seconds.
type Plan struct {
	Mode    string            `json:"mode"`   // grpc, relay, ws or http
	Target  string            `json:"target"` // HOST:PORT for grpc and relay, else a URL
	Headers map[string]string `json:"headers"`
	Model   string            `json:"model"`
	// SessionHeader, if set, carries the worker's own session id: some peers tell conversations apart by it.
	SessionHeader string `json:"session_header"`

	Workers     int     `json:"workers"`     // each runs one turn after the other on a line of its own
	Connections int     `json:"connections"` // gRPC channels shared by the workers; 0: at most 8
	Turns       int     `json:"turns"`       // per worker; 0: until duration_s
	DurationS   float64 `json:"duration_s"`
	WarmupTurns int     `json:"warmup_turns"` // per worker, before `ready`; not counted
	StaggerS    float64 `json:"stagger_s"`    // the workers start spread over so long
	Words       int     `json:"words"`        // text deltas expected of each turn; 0: any number
	StallS      float64 `json:"stall_s"`      // a gap between events above this counts as a stall; 0: none does

	Prefix       string `json:"prefix"`        // of session ids
	WarmUp       string `json:"warm_up"`       // none or handshake
	Sessions     int    `json:"sessions"`      // lines of each worker, used in turn; 0: one
	FreshSession bool   `json:"fresh_session"` // grpc: a new session for each turn, closed after it
	SecondTurn   bool   `json:"second_turn"`   // with fresh_session: the measured turn is the session's second
	AwaitReady   bool   `json:"await_ready"`   // grpc: the slot is READY before the turn starts

	HistoryItems int    `json:"history_items"`      // items of the conversation before the turn's own
	ItemBytes    int    `json:"item_bytes"`         // length of each one's text
	Instructions int    `json:"instructions_bytes"` // grpc: length of the session's instructions
	Conversation string `json:"conversation"`       // same: each turn sends the same; grow: and what came before; append: grow by APPEND
	ToolSteps    int    `json:"tool_steps"`         // with grow: every answer is a call, and each turn answers the one before

	CancelAfter int    `json:"cancel_after"` // the worker leaves after so many deltas; 0: never
	Hold        string `json:"hold"`         // idle: warm sessions without a turn; used: after a turn; active: in the middle of one
}

func parsePlan(text []byte) (Plan, error) {
	plan := Plan{Model: "sim-small", Prefix: "bench", WarmUp: "handshake", Conversation: "same"}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&plan); err != nil {
		return plan, fmt.Errorf("plan: %w", err)
	}
	if plan.Workers < 1 {
		return plan, fmt.Errorf("plan: workers is %d, expected 1 or more", plan.Workers)
	}
	if plan.Turns == 0 && plan.DurationS == 0 && plan.Hold == "" {
		return plan, fmt.Errorf("plan: one of turns, duration_s and hold is needed")
	}
	if plan.Connections == 0 {
		plan.Connections = min(plan.Workers, 8)
	}
	return plan, nil
}

// message is a user message of `bytes` characters as JSON.
func message(number, bytes int) []byte {
	text := fmt.Sprintf("item %d ", number)
	if pad := bytes - len(text); pad > 0 {
		text += strings.Repeat("w", pad)
	}
	return fmt.Appendf(nil, `{"type":"message","role":"user","content":[{"type":"input_text","text":"%s"}]}`, text)
}

// conversation is what a worker sends: the history and the turn's own message.
func (p Plan) conversation() [][]byte {
	items := make([][]byte, 0, p.HistoryItems+1)
	for number := range p.HistoryItems {
		items = append(items, message(number, p.ItemBytes))
	}
	return append(items, message(p.HistoryItems, p.ItemBytes))
}

// body is the request as one JSON object: `kind` for a WebSocket, `stream` for a POST.
func (p Plan) body(items [][]byte) []byte {
	input := bytes.Join(items, []byte(","))
	lead := `{"type":"response.create",`
	if p.Mode == "http" {
		lead = `{"stream":true,`
	}
	return fmt.Appendf(nil, `%s"model":"%s","input":[%s],"store":false}`, lead, p.Model, input)
}
