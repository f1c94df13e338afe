package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A reading is what one turn brought. Its worker feeds it; nobody else touches it.
type reading struct {
	records *records
	began   time.Time
	last    time.Time
	words   int
	events  int
	wrong   string // what is wrong with the events; blank: nothing so far
	ended   bool
	outcome string
	items   [][]byte // output items, verbatim, where the caller keeps them
	keep    bool
	onDelta func(words int)
}

const (
	stampDigits = 19
	indexDigits = 6
)

// event notes an event of the upstream; `at` is when it was read.
func (r *reading) event(at time.Time) {
	r.events++
	if r.events == 1 {
		r.records.first(at.Sub(r.began))
	}
}

// delta notes a text delta. Its text starts with the moment of its writing and its index; see the upstream.
func (r *reading) delta(at time.Time, text []byte) {
	r.event(at)
	if len(text) > stampDigits+indexDigits && text[stampDigits] == '.' {
		if index := digits(text[stampDigits+1 : stampDigits+1+indexDigits]); index != int64(r.words) && r.wrong == "" {
			r.wrong = fmt.Sprintf("delta %d came where %d was due", index, r.words)
		}
		if stamp := digits(text[:stampDigits]); stamp > 0 {
			r.records.delta(at.UnixNano()-stamp, at.Sub(r.last), r.words > 0)
		}
	}
	r.last = at
	r.words++
	if r.onDelta != nil {
		r.onDelta(r.words)
	}
}

func digits(text []byte) int64 {
	var value int64
	for _, c := range text {
		value = value*10 + int64(c-'0')
	}
	return value
}

var (
	deltaMark     = []byte(`delta":`)
	isDelta       = []byte(`.delta"`)
	isCompleted   = []byte(`"response.completed"`)
	isFailed      = []byte(`"response.failed"`)
	isError       = []byte(`"error"`)
	headOfAnEvent = 160
)

// raw notes an event given as its JSON. Spaces after colons, which some peers write, are no matter.
func (r *reading) raw(at time.Time, payload []byte) {
	head := payload[:min(len(payload), headOfAnEvent)]
	if bytes.Contains(head, isDelta) {
		// The member's name, not the end of the type: that has no colon after it.
		if i := bytes.Index(payload, deltaMark); i >= 0 {
			text := bytes.TrimLeft(payload[i+len(deltaMark):], ` "`)
			r.delta(at, text)
			return
		}
	}
	r.event(at)
	switch {
	case bytes.Contains(payload, isCompleted):
		r.ended = true
	case bytes.Contains(head, isFailed), bytes.Contains(head, isError) && !bytes.Contains(head, []byte(`"response"`)):
		r.wrong = "failed: " + string(payload[:min(len(payload), 300)])
		r.ended = true
	}
}

// records adds up all workers' readings.
type records struct {
	mu            sync.Mutex
	firstUS       *hdrhistogram.Histogram
	gapUS         *hdrhistogram.Histogram
	latencyUS     *hdrhistogram.Histogram
	turnUS        *hdrhistogram.Histogram
	stallUS       int64
	streams       int64
	cancelled     int64
	events        int64
	deltas        int64
	lost          int64
	failedStreams int64
	stalls        int64
	errors        map[string]int
	outcomes      map[string]int
}

func newRecords(stallS float64) *records {
	histogram := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, longestUS, 3) }
	return &records{
		firstUS: histogram(), gapUS: histogram(), latencyUS: histogram(), turnUS: histogram(),
		stallUS: int64(stallS * 1e6), errors: map[string]int{}, outcomes: map[string]int{},
	}
}

const longestUS = 120_000_000

// add counts a value; none is left out for being too long or too short.
func add(h *hdrhistogram.Histogram, us int64) {
	_ = h.RecordValue(min(max(1, us), longestUS))
}

func (r *records) first(took time.Duration) {
	r.mu.Lock()
	add(r.firstUS, took.Microseconds())
	r.mu.Unlock()
}

func (r *records) delta(latencyNS int64, gap time.Duration, hasGap bool) {
	r.mu.Lock()
	add(r.latencyUS, latencyNS/1000)
	if hasGap {
		us := gap.Microseconds()
		add(r.gapUS, us)
		if r.stallUS > 0 && us > r.stallUS {
			r.stalls++
		}
	}
	r.mu.Unlock()
}

// turn adds a finished turn; `expected` deltas were due, 0 for any number.
func (r *records) turn(t *reading, took time.Duration, err error, expected int, cancelled bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events += int64(t.events)
	r.deltas += int64(t.words)
	if t.outcome != "" {
		r.outcomes[t.outcome]++
	}
	if cancelled {
		r.cancelled++
		return
	}
	wrong := t.wrong
	switch {
	case err != nil:
		wrong = err.Error()
	case wrong == "" && !t.ended:
		wrong = "the stream ended before its terminal event"
	}
	if expected > 0 && t.words < expected {
		r.lost += int64(expected - t.words)
		if wrong == "" {
			wrong = "deltas are missing"
		}
	}
	if expected > 0 && t.words > expected && wrong == "" {
		wrong = "more deltas than were sent"
	}
	if wrong != "" {
		r.failedStreams++
		if len(r.errors) < 20 || r.errors[wrong] > 0 {
			r.errors[wrong]++
		}
		return
	}
	r.streams++
	add(r.turnUS, took.Microseconds())
}

// A Summary is a histogram: microseconds, and the counted values for adding up several runs.
type Summary struct {
	Count int64      `json:"count"`
	P50   int64      `json:"p50"`
	P90   int64      `json:"p90"`
	P99   int64      `json:"p99"`
	P999  int64      `json:"p999"`
	Max   int64      `json:"max"`
	Mean  float64    `json:"mean"`
	Bars  [][2]int64 `json:"bars"`
}

func summary(h *hdrhistogram.Histogram) Summary {
	s := Summary{
		Count: h.TotalCount(), P50: h.ValueAtQuantile(50), P90: h.ValueAtQuantile(90), P99: h.ValueAtQuantile(99),
		P999: h.ValueAtQuantile(99.9), Max: h.Max(), Bars: [][2]int64{},
	}
	if s.Count > 0 {
		s.Mean, _ = strconv.ParseFloat(strconv.FormatFloat(h.Mean(), 'f', 1, 64), 64)
	}
	for _, bar := range h.Distribution() {
		if bar.Count > 0 {
			s.Bars = append(s.Bars, [2]int64{bar.To, bar.Count})
		}
	}
	return s
}

// A Result is what a run prints.
type Result struct {
	Phase     string         `json:"phase"`
	ElapsedS  float64        `json:"elapsed_s"`
	Streams   int64          `json:"streams"` // complete ones
	Cancelled int64          `json:"cancelled"`
	Failed    int64          `json:"failed"`
	Events    int64          `json:"events"` // of the upstream, deltas included
	Deltas    int64          `json:"deltas"`
	Lost      int64          `json:"lost"` // deltas
	Stalls    int64          `json:"stalls"`
	CPUS      float64        `json:"cpu_s"` // of this client
	FirstUS   Summary        `json:"first_us"`
	GapUS     Summary        `json:"gap_us"`
	LatencyUS Summary        `json:"latency_us"`
	TurnUS    Summary        `json:"turn_us"`
	Errors    map[string]int `json:"errors"`
	Outcomes  map[string]int `json:"outcomes"` // grpc: where the attempts' sockets came from
}

func (r *records) result(elapsed time.Duration, cpu time.Duration) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Result{
		Phase: "result", ElapsedS: elapsed.Seconds(), Streams: r.streams, Cancelled: r.cancelled, Failed: r.failedStreams,
		Events: r.events, Deltas: r.deltas, Lost: r.lost, Stalls: r.stalls, CPUS: cpu.Seconds(),
		FirstUS: summary(r.firstUS), GapUS: summary(r.gapUS), LatencyUS: summary(r.latencyUS), TurnUS: summary(r.turnUS),
		Errors: r.errors, Outcomes: r.outcomes,
	}
}
