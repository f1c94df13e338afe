package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

type event struct {
	Type     string `json:"type"`
	Number   int    `json:"sequence_number"`
	Delta    string `json:"delta"`
	Response struct {
		ID string `json:"id"`
	} `json:"response"`
}

func decode(t *testing.T, text []byte) event {
	t.Helper()
	var e event
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatalf("an event is no JSON: %v\n%s", err, text)
	}
	return e
}

func readFrames(t *testing.T, wire []byte) []event {
	t.Helper()
	var events []event
	for reader := bytes.NewReader(wire); reader.Len() > 0; {
		frame, err := ws.ReadFrame(reader)
		if err != nil || frame.Header.OpCode != ws.OpText || !frame.Header.Fin {
			t.Fatalf("a bad frame after %d events: %v", len(events), err)
		}
		events = append(events, decode(t, frame.Payload))
	}
	return events
}

func readChunks(t *testing.T, wire []byte) []event {
	t.Helper()
	body, err := io.ReadAll(httputil.NewChunkedReader(bufio.NewReader(bytes.NewReader(wire))))
	if err != nil {
		t.Fatal(err)
	}
	var events []event
	for block := range strings.SplitSeq(strings.TrimSuffix(string(body), "\n\n"), "\n\n") {
		name, data, _ := strings.Cut(block, "\ndata: ")
		e := decode(t, []byte(data))
		if name != "event: "+e.Type {
			t.Fatalf("%q names an event of type %q", name, e.Type)
		}
		events = append(events, e)
	}
	return events
}

// paced is what the pacer writes, piece by piece.
func paced(a *answer, id uint64) []byte {
	wire := a.head.numbered(id, nil)
	for index := range a.words {
		wire = a.appendDelta(wire, id, index, 0)
	}
	return a.tail.numbered(id, wire)
}

func TestAnswersAreWhatTheirShapeSays(t *testing.T) {
	for _, query := range []string{"words=1", "words=50&event_bytes=3200", "words=7&tool=1"} {
		values, _ := url.ParseQuery(query)
		shape, err := parseShape(values)
		if err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func(*testing.T, []byte) []event{"ws": readFrames, "sse": readChunks} {
			t.Run(query+" "+name, func(t *testing.T) {
				wrap, end := wrapping(asFrame), ""
				if name == "sse" {
					wrap, end = asChunk, "0\r\n\r\n"
				}
				a := newAnswer(shape, wrap, end)
				whole := bytes.Clone(a.whole(42).wire)
				if !bytes.Equal(whole, paced(a, 42)) {
					t.Error("an answer at once differs from the same one in pieces")
				}
				check(t, a, read(t, whole))
			})
		}
	}
}

func check(t *testing.T, a *answer, events []event) {
	t.Helper()
	if len(events) != a.events() {
		t.Errorf("%d events, counted as %d", len(events), a.events())
	}
	deltas := 0
	for _, e := range events {
		if !strings.HasSuffix(e.Type, ".delta") {
			continue
		}
		if prefix := fmt.Sprintf("%019d.%06d ", 0, deltas); !strings.HasPrefix(e.Delta, prefix) || len(e.Delta) != a.eventBytes {
			t.Errorf("delta %d is %q", deltas, e.Delta)
		}
		deltas++
	}
	last := events[len(events)-1]
	if deltas != a.words || last.Type != "response.completed" || last.Response.ID != "resp_0000000000000042" {
		t.Errorf("%d deltas of %d, the last event is %+v", deltas, a.words, last)
	}
}

func TestAPooledAnswerGetsItsOwnNumber(t *testing.T) {
	a := newAnswer(shape{words: 2, eventBytes: 32}, asFrame, "")
	first := a.whole(1)
	a.pool.Put(first)
	second := readFrames(t, a.whole(2).wire)
	if id := second[0].Response.ID; id != "resp_0000000000000002" {
		t.Errorf("its id is %q", id)
	}
}

func TestAWrongShapeIsRefused(t *testing.T) {
	for _, query := range []string{"words=0", "words=x", "pace_s=-1", "wrods=3"} {
		values, _ := url.ParseQuery(query)
		if _, err := parseShape(values); err == nil {
			t.Errorf("%q was taken", query)
		}
	}
}
