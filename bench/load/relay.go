package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// rawCodec passes message bytes through.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	into := v.(*[]byte)
	if n := data.Len(); cap(*into) < n {
		*into = make([]byte, n)
	} else {
		*into = (*into)[:n]
	}
	data.CopyTo(*into)
	return nil
}

// relayLine runs turns through the bare relay: the frames of the upstream, one message each.
type relayLine struct {
	channel *grpc.ClientConn
	request []byte
}

func newRelayLine(plan Plan, channel *grpc.ClientConn) *relayLine {
	return &relayLine{channel, plan.body(plan.conversation())}
}

var relayStream = grpc.StreamDesc{ServerStreams: true}

func (l *relayLine) turn(ctx context.Context, r *reading) error {
	stream, err := l.channel.NewStream(ctx, &relayStream, "/bare.Relay/Turn", grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&l.request); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	var payload []byte
	for {
		if err := stream.RecvMsg(&payload); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		r.raw(time.Now(), payload)
	}
}

func (l *relayLine) prepare(context.Context) error { return nil }
func (l *relayLine) finish(context.Context) error  { return nil }
func (l *relayLine) close()                        {}
