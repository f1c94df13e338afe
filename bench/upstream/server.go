package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

type counts struct {
	Handshakes    atomic.Int64
	Open          atomic.Int64 // connections
	Started       atomic.Int64 // responses
	Completed     atomic.Int64
	Aborted       atomic.Int64 // the peer left before the end
	Continued     atomic.Int64 // requests with a previous_response_id
	RequestBytes  atomic.Int64 // of WebSocket messages and HTTP bodies
	EventsWritten atomic.Int64
	Late          atomic.Int64 // paced events written over a millisecond after they were due
}

type server struct {
	handshakeDelay time.Duration
	pacer          *pacer
	counts         counts
	responses      atomic.Uint64

	mu      sync.Mutex
	shape   shape
	answers map[string]*answer
}

func newServer(handshakeDelay time.Duration) *server {
	s := &server{handshakeDelay: handshakeDelay, pacer: newPacer(), answers: map[string]*answer{}}
	s.shape, _ = parseShape(nil)
	return s
}

func (s *server) answer(wire string) *answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := fmt.Sprint(wire, s.shape)
	made, ok := s.answers[key]
	if !ok {
		if wire == "ws" {
			made = newAnswer(s.shape, asFrame, "")
		} else {
			made = newAnswer(s.shape, asChunk, "0\r\n\r\n")
		}
		s.answers[key] = made
	}
	return made
}

// serve reads requests from one connection to its end. Answers are written beside it, so that a peer that leaves is noticed.
func (s *server) serve(tcp *net.TCPConn) {
	s.counts.Open.Add(1)
	defer s.counts.Open.Add(-1)
	defer tcp.Close()
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	c := &connection{server: s, tcp: tcp, raw: raw}
	defer c.leave()
	reader := bufio.NewReaderSize(tcp, 8<<10)
	for {
		request, err := http.ReadRequest(reader)
		if err != nil {
			return
		}
		path := request.URL.Path
		switch {
		case strings.EqualFold(request.Header.Get("Upgrade"), "websocket"):
			s.serveWebSocket(c, reader, request)
			return
		case path == "/bench/shape":
			shape, err := parseShape(request.URL.Query())
			if err != nil {
				reply(tcp, 400, "text/plain", err.Error())
				continue
			}
			s.mu.Lock()
			s.shape = shape
			s.mu.Unlock()
			reply(tcp, 200, "text/plain", "ok")
		case path == "/bench/stats":
			reply(tcp, 200, "application/json", s.stats())
		case request.Method == http.MethodPost && strings.HasSuffix(path, "/responses"):
			body, err := io.ReadAll(request.Body)
			if err != nil {
				return
			}
			const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n" +
				"Transfer-Encoding: chunked\r\n\r\n"
			if !c.start(body, s.answer("sse"), head) {
				return
			}
		case strings.HasSuffix(path, "/models"):
			const list = `{"object":"list","data":[{"id":"sim-small","object":"model","created":1,"owned_by":"bench"}],"models":[]}`
			reply(tcp, 200, "application/json", list)
		default:
			_, _ = io.Copy(io.Discard, request.Body)
			reply(tcp, 404, "application/json", `{"error":{"message":"not served by the benchmark's upstream"}}`)
		}
	}
}

func reply(w io.Writer, status int, kind, body string) {
	_, _ = fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), kind, len(body), body)
}

func (s *server) stats() string {
	n := &s.counts
	text, _ := json.Marshal(map[string]int64{
		"handshakes": n.Handshakes.Load(), "open": n.Open.Load(), "started": n.Started.Load(), "completed": n.Completed.Load(),
		"aborted": n.Aborted.Load(), "continued": n.Continued.Load(), "request_bytes": n.RequestBytes.Load(),
		"events_written": n.EventsWritten.Load(), "late": n.Late.Load(),
	})
	return string(text)
}

func (s *server) serveWebSocket(c *connection, reader *bufio.Reader, request *http.Request) {
	time.Sleep(s.handshakeDelay)
	s.counts.Handshakes.Add(1)
	_, err := fmt.Fprintf(c.tcp, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", acceptKey(request.Header.Get("Sec-WebSocket-Key")))
	if err != nil {
		return
	}
	var message bytes.Buffer
	for {
		header, err := ws.ReadHeader(reader)
		if err != nil {
			return
		}
		at := message.Len()
		if _, err := io.CopyN(&message, reader, header.Length); err != nil {
			return
		}
		payload := message.Bytes()[at:]
		ws.Cipher(payload, header.Mask, 0)
		switch header.OpCode {
		case ws.OpClose:
			c.write(ws.MustCompileFrame(ws.NewCloseFrame(payload)))
			return
		case ws.OpPing:
			c.write(ws.MustCompileFrame(ws.NewPongFrame(payload)))
			message.Truncate(at)
		case ws.OpPong:
			message.Truncate(at)
		default:
			if header.Fin {
				if !c.start(message.Bytes(), s.answer("ws"), "") {
					return
				}
				message.Reset()
			}
		}
	}
}

// connection is one peer; its answers stop when it leaves.
type connection struct {
	server  *server
	tcp     *net.TCPConn
	raw     syscall.RawConn
	mu      sync.Mutex // whole frames only
	gone    atomic.Bool
	busy    bool // an answer is under way; without lanes one socket answers one request at a time
	waiting []waiting
}

type waiting struct {
	answer *answer
	head   string
}

func (c *connection) leave() { c.gone.Store(true) }

func (c *connection) write(wire []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.tcp.Write(wire)
	return err == nil
}

var previousResponse = []byte(`"previous_response_id":"`)

// start answers one request. Returns false when the peer is gone.
func (c *connection) start(request []byte, a *answer, head string) bool {
	n := &c.server.counts
	n.Started.Add(1)
	n.RequestBytes.Add(int64(len(request)))
	if bytes.Contains(request, previousResponse) {
		n.Continued.Add(1)
	}
	c.mu.Lock()
	if c.busy {
		c.waiting = append(c.waiting, waiting{a, head})
		c.mu.Unlock()
		return true
	}
	c.busy = true
	c.mu.Unlock()
	return c.answer(a, head)
}

// done is called when an answer is complete; the next one that waits starts.
func (c *connection) done() {
	c.server.counts.Completed.Add(1)
	c.mu.Lock()
	c.busy = len(c.waiting) > 0
	if !c.busy {
		c.mu.Unlock()
		return
	}
	next := c.waiting[0]
	c.waiting = c.waiting[1:]
	c.mu.Unlock()
	go c.answer(next.answer, next.head)
}

func (c *connection) answer(a *answer, head string) bool {
	n := &c.server.counts
	id := c.server.responses.Add(1)
	if a.pace == 0 && a.firstDelay == 0 {
		whole := a.whole(id)
		ok := head == "" || c.write([]byte(head))
		ok = ok && c.write(whole.wire)
		a.pool.Put(whole)
		if ok {
			n.EventsWritten.Add(int64(a.events()))
			c.done()
		} else {
			n.Aborted.Add(1)
		}
		return ok
	}
	s := &stream{connection: c, answer: a, id: id, head: head, due: monotonic() + int64(a.firstDelay)}
	if a.firstDelay > 0 || s.write() {
		c.server.pacer.add(s)
	}
	return true
}

// stream is a paced answer under way. Owned by one goroutine at a time: first its connection's, then the pacer's.
type stream struct {
	*connection
	*answer
	id      uint64
	head    string
	due     int64 // nanoseconds of the monotonic clock
	index   int
	pending []byte
}

// write sends what is due. Returns false when there is nothing left to send, or nobody to send it to.
func (s *stream) write() bool {
	n := &s.server.counts
	if s.gone.Load() {
		n.Aborted.Add(1)
		return false
	}
	wire := s.pending
	if len(wire) == 0 && s.index < s.words {
		wire = s.next(wire)
		if monotonic()-s.due > int64(time.Millisecond) {
			n.Late.Add(1)
		}
	}
	s.mu.Lock()
	written := 0
	var failure error
	err := s.raw.Write(func(fd uintptr) bool {
		written, failure = unix.Write(int(fd), wire)
		return true // never waits: others are due
	})
	s.mu.Unlock()
	if failure == unix.EAGAIN {
		written, failure = 0, nil
	}
	if err != nil || failure != nil {
		n.Aborted.Add(1)
		return false
	}
	s.pending = wire[:copy(wire, wire[written:])]
	if len(s.pending) > 0 {
		s.due += int64(time.Millisecond) // a reader that is slow gets the rest before anything new
		return true
	}
	if s.index == s.words {
		s.done()
		return false
	}
	s.due += int64(s.pace)
	return true
}

// next appends the next delta, with the head before the first and the tail after the last.
func (s *stream) next(wire []byte) []byte {
	n := &s.server.counts
	if s.index == 0 {
		wire = append(wire, s.head...)
		wire = s.answer.head.numbered(s.id, wire)
		n.EventsWritten.Add(int64(s.firsts))
	}
	wire = s.appendDelta(wire, s.id, s.index, uint64(time.Now().UnixNano()))
	n.EventsWritten.Add(1)
	s.index++
	if s.index == s.words {
		wire = s.tail.numbered(s.id, wire)
		n.EventsWritten.Add(int64(s.firsts))
	}
	return wire
}
