package warmline_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	warmline "github.com/warmline/warmline/client_stubs/go"
	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// patience is the longest wait for what a test expects to happen at once; only reached when the test fails.
const patience = 10 * time.Second

type stream = grpc.ServerStreamingServer[warmlinev1.StreamTurnResponse]

// fake serves turns by a function, and sessions that always are there.
type fake struct {
	warmlinev1.UnimplementedTurnServiceServer
	warmlinev1.UnimplementedSessionServiceServer
	turn     func(call int, request *warmlinev1.StreamTurnRequest, stream stream) error
	calls    int
	metadata chan metadata.MD
	ended    chan error // What ended each call's context, nil when the handler returned by itself.
}

func (f *fake) CreateSession(
	ctx context.Context, _ *warmlinev1.CreateSessionRequest,
) (*warmlinev1.CreateSessionResponse, error) {
	f.note(ctx)
	return &warmlinev1.CreateSessionResponse{Created: true}, nil
}

func (f *fake) StreamTurn(request *warmlinev1.StreamTurnRequest, stream stream) error {
	f.note(stream.Context())
	f.calls++
	err := f.turn(f.calls, request, stream)
	f.ended <- stream.Context().Err()
	return err
}

func (f *fake) note(ctx context.Context) {
	carried, _ := metadata.FromIncomingContext(ctx)
	f.metadata <- carried
}

// serve starts a server whose turns are the function's, and a client of it.
func serve(
	t *testing.T, turn func(int, *warmlinev1.StreamTurnRequest, stream) error, options ...warmline.ClientOption,
) (*warmline.Client, *fake) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, served := grpc.NewServer(), &fake{turn: turn, metadata: make(chan metadata.MD, 9), ended: make(chan error, 9)}
	warmlinev1.RegisterTurnServiceServer(server, served)
	warmlinev1.RegisterSessionServiceServer(server, served)
	go server.Serve(listener) //nolint:errcheck // It ends with Stop.
	t.Cleanup(server.Stop)
	client, err := warmline.NewClient(listener.Addr().String(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client, served
}

// waitCancelled waits until the call was given up by its caller.
func (f *fake) waitCancelled(t *testing.T) {
	t.Helper()
	select {
	case err := <-f.ended:
		if !errors.Is(err, context.Canceled) {
			t.Fatalf("the call's context ended with %v, expected it to be cancelled", err)
		}
	case <-time.After(patience):
		t.Fatal("the server never saw the cancel")
	}
}

// send writes one message of numbered events.
func send(t *testing.T, stream stream, first uint64, members ...any) {
	t.Helper()
	message := &warmlinev1.StreamTurnResponse{}
	for number, member := range members {
		event := &warmlinev1.TurnEvent{Sequence: first + uint64(number), Attempt: 1}
		switch member := member.(type) {
		case string:
			event.Event = &warmlinev1.TurnEvent_TextDelta{TextDelta: &warmlinev1.TextDelta{Delta: member, ItemId: "m"}}
		case *warmlinev1.Admitted:
			event.Event = &warmlinev1.TurnEvent_Admitted{Admitted: member}
		case *warmlinev1.Completed:
			event.Event = &warmlinev1.TurnEvent_Completed{Completed: member}
		case *warmlinev1.Restarted:
			event.Event = &warmlinev1.TurnEvent_Restarted{Restarted: member}
		default:
			t.Fatalf("no event of %T", member)
		}
		message.Events = append(message.Events, event)
	}
	if err := stream.Send(message); err != nil {
		t.Logf("send: %v", err)
	}
}

var (
	admitted  = &warmlinev1.Admitted{TurnId: "turn-1", RequestId: "request-1"}
	completed = &warmlinev1.Completed{ResponseId: "resp_1", HistoryPosition: 2}
	hello     = []*warmlinev1.Item{warmline.User("hello")}
)

// refusal is a status with an ErrorInfo of that reason and further details.
func refusal(code codes.Code, reason string, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: "warmline", Metadata: map[string]string{"turn_id": "turn-9"}}
	made, err := status.New(code, "scripted").WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		panic(err)
	}
	return made.Err()
}
