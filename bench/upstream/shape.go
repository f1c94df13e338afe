package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A shape says what an answer looks like: `words` text deltas (or argument deltas of a tool call), `pace` apart.
type shape struct {
	words      int
	pace       time.Duration // 0: everything at once
	firstDelay time.Duration // between the request and the first event
	eventBytes int           // length of one delta's text, at least minEventBytes
	tool       bool          // a function call instead of a message
}

const (
	stampMark = "1111111111111111111" // 19 digits: nanoseconds of the wall clock when the event was written
	indexMark = "222222"              // 6 digits: which delta it is, from 0
	idMark    = "3333333333333333"    // 16 digits: number of the response
	// A delta's text is "STAMP.INDEX " and padding.
	minEventBytes = len(stampMark) + 1 + len(indexMark) + 1
)

func parseShape(query url.Values) (shape, error) {
	number := func(name string, absent float64) (float64, error) {
		if !query.Has(name) {
			return absent, nil
		}
		return strconv.ParseFloat(query.Get(name), 64)
	}
	var s shape
	values := map[string]float64{"words": 24, "pace_s": 0, "first_delay_s": 0, "event_bytes": 32, "tool": 0}
	for name := range query {
		if _, known := values[name]; !known {
			return s, fmt.Errorf("unknown parameter %q", name)
		}
	}
	for name, absent := range values {
		value, err := number(name, absent)
		if err != nil || value < 0 {
			return s, fmt.Errorf("%s=%q is not a number of 0 or more", name, query.Get(name))
		}
		values[name] = value
	}
	s.words = int(values["words"])
	if s.words < 1 || s.words > 999_999 {
		return s, fmt.Errorf("words=%d, expected 1 to 999999", s.words)
	}
	s.pace = time.Duration(values["pace_s"] * 1e9)
	s.firstDelay = time.Duration(values["first_delay_s"] * 1e9)
	s.eventBytes = max(int(values["event_bytes"]), minEventBytes)
	s.tool = values["tool"] != 0
	return s, nil
}

// wrapping puts one event's JSON on the wire: as a text frame, or as a server-sent event in a chunk of its own.
type wrapping func(kind, json string) []byte

func asFrame(_, json string) []byte {
	n := len(json)
	switch {
	case n < 126:
		return append([]byte{0x81, byte(n)}, json...)
	case n < 1<<16:
		return append(binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(n)), json...)
	default:
		return append(binary.BigEndian.AppendUint64([]byte{0x81, 127}, uint64(n)), json...)
	}
}

func asChunk(kind, json string) []byte {
	event := "event: " + kind + "\ndata: " + json + "\n\n"
	return fmt.Appendf(nil, "%x\r\n%s\r\n", len(event), event)
}

// An answer is a shape ready to be written: `head` up to the first delta, one `delta` to be stamped, `tail` after the last.
type answer struct {
	shape
	head, delta, tail        part
	stampAt, indexAt, firsts int // firsts: events in head
	pool                     sync.Pool
}

// part is a piece of the wire with places for the response's number.
type part struct {
	wire []byte
	ids  []int
}

func (p part) numbered(id uint64, into []byte) []byte {
	at := len(into)
	into = append(into, p.wire...)
	for _, offset := range p.ids {
		putDigits(into[at+offset:at+offset+len(idMark)], id)
	}
	return into
}

func putDigits(place []byte, value uint64) {
	for i := len(place) - 1; i >= 0; i-- {
		place[i] = byte('0' + value%10)
		value /= 10
	}
}

func places(wire []byte, mark string) []int {
	var at []int
	for from := 0; ; {
		i := bytes.Index(wire[from:], []byte(mark))
		if i < 0 {
			return at
		}
		at = append(at, from+i)
		from += i + len(mark)
	}
}

func newAnswer(s shape, wrap wrapping, end string) *answer {
	word := stampMark + "." + indexMark + " "
	word += strings.Repeat("x", s.eventBytes-len(word))
	text := "an answer" // what the deltas add up to would only make the last events long
	response := func(status, output, usage string) string {
		return `{"id":"resp_` + idMark + `","object":"response","created_at":1795732482,"status":"` + status +
			`","error":null,"incomplete_details":null,"instructions":null,"metadata":{},"model":"sim-small","output":[` + output +
			`],"parallel_tool_calls":true,"previous_response_id":null,"temperature":1.0,"tool_choice":"auto","tools":[],` +
			`"top_p":1.0,"truncation":"disabled","usage":` + usage + `,"store":true,"background":false,"service_tier":"default"}`
	}
	var added, done, itemID, deltaKind, doneKind, doneField string
	if s.tool {
		itemID, deltaKind, doneKind = "fc_"+idMark, "response.function_call_arguments.delta", "response.function_call_arguments.done"
		item := `{"id":"` + itemID + `","type":"function_call","call_id":"call_` + idMark + `","name":"look_up","status":"%s","arguments":"%s"}`
		added, done, doneField = fmt.Sprintf(item, "in_progress", ""), fmt.Sprintf(item, "completed", `{\"word\":\"warm\"}`), `"arguments":"{\"word\":\"warm\"}"`
	} else {
		itemID, deltaKind, doneKind = "msg_"+idMark, "response.output_text.delta", "response.output_text.done"
		item := `{"id":"` + itemID + `","type":"message","status":"%s","role":"assistant","content":[%s]}`
		added = fmt.Sprintf(item, "in_progress", "")
		done = fmt.Sprintf(item, "completed", `{"type":"output_text","text":"`+text+`","annotations":[],"logprobs":[]}`)
		doneField = `"content_index":0,"text":"` + text + `","logprobs":[]`
	}
	place := `"item_id":"` + itemID + `","output_index":0`
	usage := fmt.Sprintf(`{"input_tokens":20,"input_tokens_details":{"cached_tokens":0},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%d}`, s.words, s.words+20)
	event := func(kind, fields string, number string) []byte {
		return wrap(kind, `{"type":"`+kind+`",`+fields+`,"sequence_number":`+number+`}`)
	}
	partOf := func(text string) string {
		return `"content_index":0,"part":{"type":"output_text","text":"` + text + `","annotations":[],"logprobs":[]}`
	}
	after := func(n int) string { return strconv.Itoa(100_000 + s.words + n) } // all sequence numbers have six digits
	head := bytes.Join([][]byte{
		event("response.created", `"response":`+response("in_progress", "", "null"), "100000"),
		event("response.in_progress", `"response":`+response("in_progress", "", "null"), "100001"),
		event("response.output_item.added", `"output_index":0,"item":`+added, "100002"),
	}, nil)
	tail := [][]byte{event(doneKind, place+","+doneField, after(4))}
	firsts := 3
	if !s.tool {
		head = append(head, event("response.content_part.added", place+","+partOf(""), "100003")...)
		tail = append(tail, event("response.content_part.done", place+","+partOf(text), after(5)))
		firsts = 4
	}
	tail = append(tail,
		event("response.output_item.done", `"output_index":0,"item":`+done, after(6)),
		event("response.completed", `"response":`+response("completed", done, usage), after(7)), []byte(end))
	contentIndex := `,"content_index":0`
	if s.tool {
		contentIndex = ""
	}
	delta := event(deltaKind, place+contentIndex+`,"delta":"`+word+`","logprobs":[]`, "100004")
	if s.tool {
		delta = event(deltaKind, place+`,"delta":"`+word+`"`, "100004")
	}
	made := func(wire []byte) part { return part{wire, places(wire, idMark)} }
	a := &answer{shape: s, head: made(head), delta: made(delta), tail: made(bytes.Join(tail, nil)), firsts: firsts}
	a.stampAt, a.indexAt = bytes.Index(delta, []byte(stampMark)), bytes.Index(delta, []byte(indexMark))
	return a
}

func (a *answer) appendDelta(into []byte, id uint64, index int, stamp uint64) []byte {
	at := len(into)
	into = a.delta.numbered(id, into)
	putDigits(into[at+a.stampAt:at+a.stampAt+len(stampMark)], stamp)
	putDigits(into[at+a.indexAt:at+a.indexAt+len(indexMark)], uint64(index))
	return into
}

// whole returns everything at once, from a pool of such buffers; its deltas have the stamp 0.
func (a *answer) whole(id uint64) *wholeAnswer {
	if w, ok := a.pool.Get().(*wholeAnswer); ok {
		for _, at := range w.ids {
			putDigits(w.wire[at:at+len(idMark)], id)
		}
		return w
	}
	w := &wholeAnswer{wire: append([]byte{}, a.head.wire...)}
	for index := range a.words {
		at := len(w.wire)
		w.wire = append(w.wire, a.delta.wire...)
		putDigits(w.wire[at+a.stampAt:at+a.stampAt+len(stampMark)], 0)
		putDigits(w.wire[at+a.indexAt:at+a.indexAt+len(indexMark)], uint64(index))
	}
	w.wire = append(w.wire, a.tail.wire...)
	w.ids = places(w.wire, idMark)
	for _, at := range w.ids {
		putDigits(w.wire[at:at+len(idMark)], id)
	}
	return w
}

type wholeAnswer struct {
	wire []byte
	ids  []int
}

func (a *answer) events() int { return a.words + a.firsts*2 }
