package main

import (
	"container/heap"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A pacer writes the events of all paced answers, each when it is due, from one thread. The runtime's own timers are a
// millisecond coarse when nothing else runs, and a goroutine per stream costs a switch per event.
type pacer struct {
	mu     sync.Mutex
	queue  queue
	wakeFD int
}

func newPacer() *pacer {
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		panic(err)
	}
	return &pacer{wakeFD: fd}
}

// add takes a stream over; its next event is due at `due`, nanoseconds of the monotonic clock.
func (p *pacer) add(s *stream) {
	p.mu.Lock()
	heap.Push(&p.queue, s)
	isFirst := p.queue[0] == s
	p.mu.Unlock()
	if isFirst {
		_, _ = unix.Write(p.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

func (p *pacer) run() {
	runtime.LockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1000, 0, 0, 0)
	var drained [8]byte
	poll := []unix.PollFd{{Fd: int32(p.wakeFD), Events: unix.POLLIN}}
	for {
		now := monotonic()
		p.mu.Lock()
		for len(p.queue) > 0 && p.queue[0].due <= now {
			s := p.queue[0]
			if s.write() {
				heap.Fix(&p.queue, 0)
			} else {
				heap.Pop(&p.queue)
			}
		}
		var wait *unix.Timespec
		if len(p.queue) > 0 {
			if left := p.queue[0].due - monotonic(); left > 0 {
				spec := unix.NsecToTimespec(left)
				wait = &spec
			} else {
				wait = &unix.Timespec{}
			}
		}
		p.mu.Unlock()
		if n, _ := unix.Ppoll(poll, wait, nil); n > 0 {
			_, _ = unix.Read(p.wakeFD, drained[:])
		}
	}
}

func monotonic() int64 {
	return int64(time.Since(origin))
}

var origin = time.Now()

// queue is a heap of streams, the one that is due next first.
type queue []*stream

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due < q[j].due }
func (q queue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)        { *q = append(*q, x.(*stream)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return x
}
