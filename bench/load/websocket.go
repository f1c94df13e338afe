package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/gobwas/ws"
)

// socketLine runs turns on one WebSocket to the upstream, without anything between.
type socketLine struct {
	conn    net.Conn
	reader  *bufio.Reader
	request []byte
	payload []byte
}

func newSocketLine(plan Plan) (*socketLine, error) {
	conn, left, _, err := ws.Dial(context.Background(), plan.Target)
	if err != nil {
		return nil, err
	}
	if left == nil {
		left = bufio.NewReaderSize(conn, 32<<10)
	} else {
		left.Reset(conn) // nothing is sent before a request
	}
	frame := ws.MaskFrame(ws.NewTextFrame(plan.body(plan.conversation())))
	return &socketLine{conn: conn, reader: left, request: ws.MustCompileFrame(frame)}, nil
}

func (l *socketLine) turn(ctx context.Context, r *reading) error {
	if deadline, ok := ctx.Deadline(); ok {
		_ = l.conn.SetDeadline(deadline)
	}
	if _, err := l.conn.Write(l.request); err != nil {
		return err
	}
	for !r.ended {
		header, err := ws.ReadHeader(l.reader)
		if err != nil {
			return err
		}
		if cap(l.payload) < int(header.Length) {
			l.payload = make([]byte, header.Length)
		}
		l.payload = l.payload[:header.Length]
		if _, err := io.ReadFull(l.reader, l.payload); err != nil {
			return err
		}
		if header.OpCode != ws.OpText {
			return fmt.Errorf("a frame of opcode %d came, expected text", header.OpCode)
		}
		r.raw(time.Now(), l.payload)
	}
	return nil
}

func (l *socketLine) prepare(context.Context) error { return nil }
func (l *socketLine) finish(context.Context) error  { return nil }
func (l *socketLine) close()                        { _ = l.conn.Close() }
