package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// A line is one worker's way to the upstream.
type line interface {
	// turn runs one turn and feeds the reading. Returns when the terminal event was read, or with what went wrong.
	turn(ctx context.Context, r *reading) error
	// prepare gets ready for one turn: what it takes is not part of the turn.
	prepare(ctx context.Context) error
	// finish tidies up after a turn; not part of it either.
	finish(ctx context.Context) error
	close()
}

const turnLimit = 120 * time.Second

func run(plan Plan, say func(any), wait func()) error {
	ctx := context.Background()
	open, closeAll, err := opener(plan)
	if err != nil {
		return err
	}
	defer closeAll()
	lines, err := openLines(ctx, plan, open)
	if err != nil {
		return err
	}
	// Only after the result was told and taken: what closing costs is no part of it.
	defer func() { wait(); closeLines(lines) }()
	if plan.Hold != "" {
		say(hold(ctx, plan, lines, say, wait))
		return nil
	}
	say(map[string]string{"phase": "ready"})
	wait()
	records := newRecords(plan.StallS)
	began, cpu := time.Now(), cpuTime()
	var group sync.WaitGroup
	for number, line := range lines {
		group.Go(func() {
			time.Sleep(time.Duration(plan.StaggerS * 1e9 * float64(number) / float64(plan.Workers)))
			work(ctx, plan, line, records, began)
		})
	}
	group.Wait()
	say(records.result(time.Since(began), cpuTime()-cpu))
	return nil
}

func closeLines(lines []line) {
	var group sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, line := range lines {
		slots <- struct{}{}
		group.Go(func() { line.close(); <-slots })
	}
	group.Wait()
}

// openLines opens all lines and warms them up, some at a time.
func openLines(ctx context.Context, plan Plan, open func(int) (line, error)) ([]line, error) {
	lines, failures := make([]line, plan.Workers), make([]error, plan.Workers)
	var group sync.WaitGroup
	slots := make(chan struct{}, 32)
	for number := range plan.Workers {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			lines[number], failures[number] = openSome(plan, open, number)
			for range plan.WarmupTurns {
				if failures[number] != nil {
					return
				}
				failures[number] = warm(ctx, plan, lines[number])
			}
		})
	}
	group.Wait()
	return lines, errors.Join(failures...)
}

// rotating uses its lines one after the other, a turn each: many sessions, few of which run at any moment.
type rotating struct {
	lines []line
	next  int
}

func openSome(plan Plan, open func(int) (line, error), number int) (line, error) {
	if plan.Sessions <= 1 {
		return open(number)
	}
	r := &rotating{}
	for i := range plan.Sessions {
		line, err := open(number*plan.Sessions + i)
		if err != nil {
			return nil, err
		}
		r.lines = append(r.lines, line)
	}
	return r, nil
}

func (r *rotating) turn(ctx context.Context, reading *reading) error {
	return r.lines[r.next].turn(ctx, reading)
}

func (r *rotating) prepare(ctx context.Context) error { return r.lines[r.next].prepare(ctx) }

func (r *rotating) finish(ctx context.Context) error {
	err := r.lines[r.next].finish(ctx)
	r.next = (r.next + 1) % len(r.lines)
	return err
}

func (r *rotating) close() {
	for _, line := range r.lines {
		line.close()
	}
}

func warm(ctx context.Context, plan Plan, line line) error {
	unrecorded := newRecords(0)
	plan.Words = 0 // a warm-up may be shorter
	one(ctx, plan, line, unrecorded)
	if unrecorded.failedStreams > 0 {
		return fmt.Errorf("a warm-up turn failed: %v", unrecorded.errors)
	}
	return nil
}

func work(ctx context.Context, plan Plan, line line, records *records, began time.Time) {
	end := began.Add(time.Duration(plan.DurationS * 1e9))
	for done := 0; plan.Turns == 0 || done < plan.Turns; done++ {
		if plan.DurationS > 0 && !time.Now().Before(end) {
			return
		}
		if !one(ctx, plan, line, records) {
			return
		}
	}
}

// one runs one turn and records it. Returns false after a failure that makes another turn pointless.
func one(ctx context.Context, plan Plan, line line, records *records) bool {
	if err := line.prepare(ctx); err != nil {
		records.turn(&reading{}, 0, err, 0, false)
		return false
	}
	limited, cancel := context.WithTimeout(ctx, turnLimit)
	defer cancel()
	r := &reading{records: records}
	cancelled := false
	if plan.CancelAfter > 0 {
		r.onDelta = func(words int) {
			if words == plan.CancelAfter {
				cancelled = true
				cancel()
			}
		}
	}
	r.began = time.Now()
	err := line.turn(limited, r)
	records.turn(r, time.Since(r.began), err, plan.Words, cancelled)
	if err := line.finish(ctx); err != nil {
		records.turn(&reading{}, 0, err, 0, false)
		return false
	}
	return err == nil || cancelled
}

// hold brings every line to the state that is asked for, tells it, and goes on when told.
func hold(ctx context.Context, plan Plan, lines []line, say func(any), wait func()) Result {
	records := newRecords(0)
	say(map[string]string{"phase": "ready"})
	wait()
	began, cpu := time.Now(), cpuTime()
	held, stop := context.WithCancel(ctx)
	defer stop()
	var reached, group sync.WaitGroup
	slots := make(chan struct{}, 32)
	for _, line := range lines {
		reached.Add(1)
		slots <- struct{}{}
		group.Go(func() {
			var once sync.Once
			arrived := func() { once.Do(func() { reached.Done(); <-slots }) }
			defer arrived()
			if err := line.prepare(ctx); err != nil {
				records.turn(&reading{}, 0, err, 0, false)
				return
			}
			switch plan.Hold {
			case "used":
				r := &reading{records: records, began: time.Now()}
				records.turn(r, 0, line.turn(ctx, r), plan.Words, false)
			case "active":
				r := &reading{records: records, began: time.Now(), onDelta: func(int) { arrived() }}
				err := line.turn(held, r)
				records.turn(r, 0, err, plan.Words, held.Err() != nil)
			}
		})
	}
	reached.Wait()
	say(map[string]string{"phase": "held"})
	wait()
	stop()
	group.Wait()
	return records.result(time.Since(began), cpuTime()-cpu)
}

func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// opener makes what opens a worker's line.
func opener(plan Plan) (open func(int) (line, error), closeAll func(), err error) {
	switch plan.Mode {
	case "grpc", "relay":
		channels, err := dial(plan)
		if err != nil {
			return nil, nil, err
		}
		closeAll = func() {
			for _, channel := range channels {
				_ = channel.Close()
			}
		}
		return func(number int) (line, error) {
			channel := channels[number%len(channels)]
			if plan.Mode == "relay" {
				return newRelayLine(plan, channel), nil
			}
			return newTurnLine(plan, channel, number)
		}, closeAll, nil
	case "ws":
		return func(int) (line, error) { return newSocketLine(plan) }, func() {}, nil
	case "http":
		client := newHTTPClient(plan)
		return func(number int) (line, error) { return newPostLine(plan, client, number), nil }, client.CloseIdleConnections, nil
	default:
		return nil, nil, fmt.Errorf("plan: mode %q, expected grpc, relay, ws or http", plan.Mode)
	}
}
