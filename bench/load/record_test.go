package main

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func delta(index int) []byte {
	return fmt.Appendf(nil, `{"type":"response.output_text.delta","item_id":"m","delta":"%019d.%06d xx","sequence_number":1}`, 7, index)
}

// spaced is as some peers write it, other fields first.
func spaced(index int) []byte {
	return fmt.Appendf(nil, `{"item_id": "m", "delta": "%019d.%06d xx", "type": "response.output_text.delta"}`, 7, index)
}

var completed = []byte(`{"type":"response.completed","response":{"id":"r"}}`)

func read(expected int, payloads ...[]byte) (*reading, *records) {
	records := newRecords(0)
	r := &reading{records: records, began: time.Now()}
	for _, payload := range payloads {
		r.raw(time.Now(), payload)
	}
	records.turn(r, time.Millisecond, nil, expected, false)
	return r, records
}

func TestAWholeStreamIsAStream(t *testing.T) {
	r, records := read(3, []byte(`{"type":"response.created"}`), delta(0), spaced(1), delta(2), completed)
	if records.streams != 1 || records.lost != 0 || records.failedStreams != 0 || r.words != 3 || r.events != 5 {
		t.Errorf("read %+v, counted %+v", r, records)
	}
	if records.latencyUS.TotalCount() != 3 || records.firstUS.TotalCount() != 1 || records.gapUS.TotalCount() != 2 {
		t.Error("not every delta was timed")
	}
}

func TestWhatIsWrongWithAStreamIsCounted(t *testing.T) {
	for name, c := range map[string]struct {
		payloads [][]byte
		lost     int64
	}{
		"a delta is missing at the end":     {[][]byte{delta(0), completed}, 1},
		"a delta is missing in between":     {[][]byte{delta(0), delta(2), completed}, 1},
		"two deltas changed places":         {[][]byte{delta(1), delta(0), completed}, 0},
		"a delta came twice":                {[][]byte{delta(0), delta(1), delta(1), completed}, 0},
		"the terminal event did not come":   {[][]byte{delta(0), delta(1)}, 0},
		"the provider failed":               {[][]byte{[]byte(`{"type":"response.failed","response":{}}`)}, 2},
		"an error came instead of a stream": {[][]byte{[]byte(`{"error":{"message":"no"}}`)}, 2},
	} {
		expected := 2
		if name == "a delta is missing in between" {
			expected = 3
		}
		_, records := read(expected, c.payloads...)
		if records.failedStreams != 1 || records.streams != 0 || records.lost != c.lost || len(records.errors) != 1 {
			t.Errorf("%s: failed %d, lost %d, %v", name, records.failedStreams, records.lost, records.errors)
		}
	}
}

func TestACancelledTurnIsNeitherCompleteNorFailed(t *testing.T) {
	records := newRecords(0)
	records.turn(&reading{words: 3}, 0, errors.New("canceled"), 100, true)
	if records.cancelled != 1 || records.failedStreams != 0 || records.lost != 0 {
		t.Errorf("counted %+v", records)
	}
}

func TestAGapAboveTheLimitIsAStall(t *testing.T) {
	records := newRecords(0.2)
	records.delta(1, 199*time.Millisecond, true)
	records.delta(1, 201*time.Millisecond, true)
	records.delta(1, time.Hour, false)
	if records.stalls != 1 {
		t.Errorf("%d stalls", records.stalls)
	}
}

func TestAPlanIsReadStrictly(t *testing.T) {
	for _, text := range []string{`{"workers":1}`, `{"workers":0,"turns":1}`, `{"workers":1,"turns":1,"wrods":3}`} {
		if _, err := parsePlan([]byte(text)); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}
