package warmline

import (
	"context"

	"github.com/google/uuid"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// A Session is one conversation's. Its config goes with each turn, so a restarted server is not noticed. It may be used
// by any number of goroutines.
type Session struct {
	// ID is the caller's choice, 1 to 64 of [A-Za-z0-9._-].
	ID string

	client *Client
	config *warmlinev1.SessionConfig // nil: the session is another's.
}

// Session opens a session: it is created at the server if it is not there, and its warm-up begins.
func (c *Client) Session(ctx context.Context, id string, options ...SessionOption) (*Session, error) {
	session := c.LazySession(id, options...)
	request := &warmlinev1.CreateSessionRequest{SessionId: id, Config: session.config}
	if _, err := unary(ctx, c, id, request, c.Sessions.CreateSession); err != nil {
		return nil, err
	}
	return session, nil
}

// LazySession leaves the session's creation to its first turn.
func (c *Client) LazySession(id string, options ...SessionOption) *Session {
	config := &warmlinev1.SessionConfig{}
	for _, option := range options {
		option.applySession(config)
	}
	return &Session{ID: id, client: c, config: config}
}

// AttachSession joins a session that another made; while it is missing, its calls fail with [SessionNotFound].
func (c *Client) AttachSession(id string) *Session {
	return &Session{ID: id, client: c}
}

// Turn sends a turn; input is the conversation, oldest first. What fails is told by the first read. The turn must be
// closed; it ends with ctx, whose deadline is the turn's.
func (s *Session) Turn(ctx context.Context, input []*Item, options ...TurnOption) *Turn {
	request := &warmlinev1.StreamTurnRequest{
		SessionId:     s.ID,
		SessionConfig: s.config,
		InputMode:     warmlinev1.InputMode_INPUT_MODE_FULL,
		Input:         input,
	}
	for _, option := range options {
		option.applyTurn(request)
	}
	if request.RequestId == "" {
		request.RequestId = uuid.NewString()
	}
	return startTurn(ctx, s.client, request)
}

// Get tells the session's state.
func (s *Session) Get(ctx context.Context) (*warmlinev1.Session, error) {
	request := &warmlinev1.GetSessionRequest{SessionId: s.ID}
	response, err := unary(ctx, s.client, s.ID, request, s.client.Sessions.GetSession)
	return response.GetSession(), err
}

// Preconnect starts a warm-up if the slot is idle; with wait, it returns when the handshake has ended, well or not.
func (s *Session) Preconnect(ctx context.Context, wait bool) (*warmlinev1.Slot, error) {
	request := &warmlinev1.PreconnectRequest{SessionId: s.ID, Wait: wait}
	response, err := unary(ctx, s.client, s.ID, request, s.client.Sessions.Preconnect)
	return response.GetSlot(), err
}

// CancelTurn cancels running calls by request or turn, either blank, and tells the request ids of those that end now.
// It fails with [TurnNotFound] when none matches.
func (s *Session) CancelTurn(ctx context.Context, requestID, turnID string) ([]string, error) {
	request := &warmlinev1.CancelTurnRequest{SessionId: s.ID, RequestId: requestID, TurnId: turnID}
	response, err := unary(ctx, s.client, s.ID, request, s.client.Turns.CancelTurn)
	return response.GetRequestIds(), err
}

// Close closes the session at the server: its running calls end with [SessionClosed]. A session that is not closed stays
// warm until it expires.
func (s *Session) Close(ctx context.Context) error {
	request := &warmlinev1.CloseSessionRequest{SessionId: s.ID}
	_, err := unary(ctx, s.client, s.ID, request, s.client.Sessions.CloseSession)
	return err
}
