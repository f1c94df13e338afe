package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	pb "github.com/warmline/warmline/client_stubs/go/warmlinev1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

func dial(plan Plan) ([]*grpc.ClientConn, error) {
	var channels []*grpc.ClientConn
	for range plan.Connections {
		channel, err := grpc.NewClient("passthrough:///"+plan.Target,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20), grpc.MaxCallSendMsgSize(64<<20)))
		if err != nil {
			return nil, err
		}
		channels = append(channels, channel)
	}
	return channels, nil
}

// turnLine runs turns of one session.
type turnLine struct {
	plan     Plan
	sessions pb.SessionServiceClient
	turns    pb.TurnServiceClient
	id       string
	made     int
	history  [][]byte
	position uint64
	request  *pb.StreamTurnRequest
}

func newTurnLine(plan Plan, channel *grpc.ClientConn, number int) (*turnLine, error) {
	l := &turnLine{
		plan: plan, sessions: pb.NewSessionServiceClient(channel), turns: pb.NewTurnServiceClient(channel),
		id: fmt.Sprintf("%s-%d", plan.Prefix, number), history: plan.conversation(),
	}
	if plan.FreshSession {
		return l, nil
	}
	return l, l.create(context.Background(), l.id)
}

func (l *turnLine) create(ctx context.Context, id string) error {
	mode := pb.WarmUpMode_WARM_UP_MODE_HANDSHAKE
	if l.plan.WarmUp == "none" {
		mode = pb.WarmUpMode_WARM_UP_MODE_NONE
	}
	l.request = nil
	defaults := &pb.RequestOptions{Model: proto.String(l.plan.Model)}
	if l.plan.Instructions > 0 {
		defaults.Instructions = proto.String(strings.Repeat("i", l.plan.Instructions))
	}
	_, err := l.sessions.CreateSession(ctx, &pb.CreateSessionRequest{SessionId: id, Config: &pb.SessionConfig{
		WarmUp: mode, RequestDefaults: defaults,
	}})
	if err != nil || !l.plan.AwaitReady {
		return err
	}
	ready, err := l.sessions.Preconnect(ctx, &pb.PreconnectRequest{SessionId: id, Wait: true})
	if err == nil && ready.GetSlot().GetState() != pb.SlotState_SLOT_STATE_READY {
		err = fmt.Errorf("the slot is %v, expected READY", ready.GetSlot())
	}
	return err
}

func (l *turnLine) prepare(ctx context.Context) error {
	if !l.plan.FreshSession {
		return nil
	}
	l.made++
	id := fmt.Sprintf("%s-n%d", l.id, l.made)
	if err := l.create(ctx, id); err != nil {
		return err
	}
	l.request = l.newRequest(id)
	if l.plan.SecondTurn {
		return l.turn(ctx, &reading{records: newRecords(0)})
	}
	return nil
}

func (l *turnLine) finish(ctx context.Context) error {
	if !l.plan.FreshSession {
		return nil
	}
	_, err := l.sessions.CloseSession(ctx, &pb.CloseSessionRequest{SessionId: l.request.SessionId})
	return err
}

func (l *turnLine) newRequest(id string) *pb.StreamTurnRequest {
	request := &pb.StreamTurnRequest{SessionId: id, Input: asItems(l.history)}
	if l.plan.Conversation == "append" {
		request.InputMode = pb.InputMode_INPUT_MODE_APPEND
		request.ExpectedHistoryPosition = proto.Uint64(0)
	}
	return request
}

func asItems(items [][]byte) []*pb.Item {
	made := make([]*pb.Item, 0, len(items))
	for _, item := range items {
		made = append(made, &pb.Item{Content: &pb.Item_Json{Json: item}})
	}
	return made
}

func (l *turnLine) turn(ctx context.Context, r *reading) error {
	if l.request == nil {
		l.request = l.newRequest(l.id)
	}
	r.keep = l.plan.Conversation != "same"
	stream, err := l.turns.StreamTurn(ctx, l.request)
	if err != nil {
		return err
	}
	var message pb.StreamTurnResponse
	var completed *pb.Completed
	for {
		if err := stream.RecvMsg(&message); err != nil {
			if errors.Is(err, io.EOF) {
				break
			}
			return err
		}
		at := time.Now()
		for _, event := range message.Events {
			if done := note(r, at, event); done != nil {
				completed = done
			}
		}
	}
	if completed != nil && r.keep {
		l.extend(r.items, completed.HistoryPosition)
	}
	return nil
}

// note feeds one event to the reading. Returns the terminal one.
func note(r *reading, at time.Time, event *pb.TurnEvent) *pb.Completed {
	switch kind := event.Event.(type) {
	case *pb.TurnEvent_TextDelta:
		r.delta(at, []byte(kind.TextDelta.Delta))
		return nil
	case *pb.TurnEvent_ToolInputDelta:
		r.delta(at, []byte(kind.ToolInputDelta.Delta))
		return nil
	case *pb.TurnEvent_AttemptStarted:
		r.outcome = kind.AttemptStarted.SlotOutcome.String()[len("SLOT_OUTCOME_"):]
		if kind.AttemptStarted.Incremental {
			r.outcome += " incremental"
		}
	case *pb.TurnEvent_ItemDone:
		if r.keep {
			r.items = append(r.items, kind.ItemDone.Item.GetJson())
		}
	case *pb.TurnEvent_Completed:
		r.event(at)
		r.ended = true
		return kind.Completed
	}
	if event.UpstreamType != "" {
		r.event(at)
	}
	return nil
}

// extend makes the next request: what was said, what came back, and something new.
func (l *turnLine) extend(output [][]byte, position uint64) {
	added := append([][]byte{}, output...)
	if l.plan.ToolSteps > 0 {
		for _, item := range output {
			added = append(added, toolOutput(item, l.plan.ItemBytes))
		}
	} else {
		added = append(added, message(len(l.history)+len(added), l.plan.ItemBytes))
	}
	if l.plan.Conversation == "append" {
		l.request.Input = asItems(added[len(output):])
		l.request.ExpectedHistoryPosition = proto.Uint64(position)
		return
	}
	l.history = append(l.history, added...)
	l.request.Input = append(l.request.Input, asItems(added)...)
}

func (l *turnLine) close() {
	if !l.plan.FreshSession {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_, _ = l.sessions.CloseSession(ctx, &pb.CloseSessionRequest{SessionId: l.id})
	}
}
