package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	pb "github.com/warmline/warmline/client_stubs/go/warmlinev1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// listen serves until SIGTERM; it prints its address.
func listen(server *grpc.Server) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	go func() { <-stop; server.Stop() }()
	fmt.Printf("listening %s\n", listener.Addr())
	return server.Serve(listener)
}

// serveTurns answers every call but StreamTurn with an empty message, and StreamTurn with prebuilt ones.
func serveTurns(args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	words := flags.Int("words", 1000, "text deltas of a turn")
	batch := flags.Int("batch", 50, "events of one message")
	if err := flags.Parse(args); err != nil {
		return err
	}
	messages := prebuilt(*words, *batch)
	return listen(grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.UnknownServiceHandler(
		func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			method, _ := grpc.MethodFromServerStream(stream)
			if method != pb.TurnService_StreamTurn_FullMethodName {
				return stream.SendMsg(&[]byte{})
			}
			for i := range messages {
				if err := stream.SendMsg(&messages[i]); err != nil {
					return err
				}
			}
			return nil
		})))
}

func prebuilt(words, batch int) [][]byte {
	var messages [][]byte
	var events []*pb.TurnEvent
	flush := func() {
		text, _ := proto.Marshal(&pb.StreamTurnResponse{Events: events})
		messages, events = append(messages, text), nil
	}
	event := func(kind string, made *pb.TurnEvent) {
		made.Attempt, made.UpstreamType = 1, kind
		events = append(events, made)
		if len(events) == batch {
			flush()
		}
	}
	for i := range words {
		event("response.output_text.delta", &pb.TurnEvent{Sequence: uint64(i + 1), Event: &pb.TurnEvent_TextDelta{TextDelta: &pb.TextDelta{
			Delta: fmt.Sprintf("%019d.%06d xxxxx", 0, i), ItemId: "msg_0000000000000001"}}})
	}
	event("response.completed", &pb.TurnEvent{Sequence: uint64(words + 1), Event: &pb.TurnEvent_Completed{Completed: &pb.Completed{ResponseId: "resp_1"}}})
	if len(events) > 0 {
		flush()
	}
	return messages
}

// serveSink takes whatever is exported and answers with an empty message, which is what success looks like.
func serveSink() error {
	var exports, received atomic.Int64
	err := listen(grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(64<<20), grpc.UnknownServiceHandler(
		func(_ any, stream grpc.ServerStream) error {
			var request []byte
			if err := stream.RecvMsg(&request); err != nil {
				return err
			}
			exports.Add(1)
			received.Add(int64(len(request)))
			return stream.SendMsg(&[]byte{})
		})))
	fmt.Printf("received %d exports, %d bytes\n", exports.Load(), received.Load())
	return err
}
