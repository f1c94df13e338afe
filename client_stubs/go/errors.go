package warmline

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// errorDomain is that of the server's google.rpc.ErrorInfo.
const errorDomain = "warmline"

// A Kind is one thing that a caller does differently. It is an error, so that errors.Is(err, warmline.LaneBusy) asks
// for it.
type Kind string

// The kinds of errors, and what to do about each.
const (
	InvalidRequest         Kind = "InvalidRequest"         // Change the request; FieldViolations or Upstream say what.
	NotFound               Kind = "NotFound"               // What the request names does not exist.
	SessionNotFound        Kind = "SessionNotFound"        // Create the session, or send its config with the turn.
	TurnNotFound           Kind = "TurnNotFound"           // No running call matches: it has ended.
	Conflict               Kind = "Conflict"               // The id is taken.
	SessionConflict        Kind = "SessionConflict"        // Use the config that the session has, or another id.
	RequestIDReused        Kind = "RequestIdReused"        // The call is there already: do not send it again.
	Precondition           Kind = "Precondition"           // Cannot succeed until something else has changed.
	SessionClosed          Kind = "SessionClosed"          // The session was closed meanwhile: start a new one.
	UpstreamSetup          Kind = "UpstreamSetup"          // The provider refuses this server: its operator must act.
	ContextTooLong         Kind = "ContextTooLong"         // Shorten or compact the conversation.
	PolicyViolation        Kind = "PolicyViolation"        // The provider's policy forbids the request.
	History                Kind = "History"                // Send the whole conversation.
	LaneBusy               Kind = "LaneBusy"               // Wait, take another lane, or say OnBusy.
	TurnPreempted          Kind = "TurnPreempted"          // A later call took the lane: this one is obsolete.
	TurnInterrupted        Kind = "TurnInterrupted"        // Cut after it began; what was delivered is in Turn.Snapshot.
	RateLimited            Kind = "RateLimited"            // Wait RetryAfter.
	QuotaExhausted         Kind = "QuotaExhausted"         // The provider's quota is used up: waiting does not help.
	LimitExceeded          Kind = "LimitExceeded"          // A limit of the server, or of gRPC's messages.
	SlowReader             Kind = "SlowReader"             // Read the stream faster.
	Unavailable            Kind = "Unavailable"            // No output was delivered: try again later.
	DeadlineExceeded       Kind = "DeadlineExceeded"       // The call took longer than it may.
	TurnCancelled          Kind = "TurnCancelled"          // Cancelled, here or by CancelTurn.
	NotImplementedByServer Kind = "NotImplementedByServer" // The contract has it and this server does not yet.
	Unauthenticated        Kind = "Unauthenticated"        // Give a token or a certificate.
	PermissionDenied       Kind = "PermissionDenied"       // The caller may not do this.
	ServerFault            Kind = "ServerFault"            // A fault of the server; its log has it under RequestID.
	Protocol               Kind = "Protocol"               // The server sent what the contract does not allow.
	SequenceGap            Kind = "SequenceGap"            // Events are missing or doubled.
	TextVoided             Kind = "TextVoided"             // A resend took back text that Turn.Text had given out.
)

// Error says the kind's name.
func (k Kind) Error() string { return string(k) }

// kindOfReason has the reasons that a caller treats otherwise than their status code says.
var kindOfReason = map[string]Kind{
	"SESSION_NOT_FOUND":       SessionNotFound,
	"TURN_NOT_FOUND":          TurnNotFound,
	"SESSION_CONFIG_CONFLICT": SessionConflict,
	"REQUEST_ID_REUSED":       RequestIDReused,
	"SESSION_CLOSED":          SessionClosed,
	"UPSTREAM_AUTH":           UpstreamSetup,
	"UPSTREAM_PERMISSION":     UpstreamSetup,
	"UPSTREAM_NOT_FOUND":      UpstreamSetup,
	"CONTEXT_TOO_LONG":        ContextTooLong,
	"POLICY_VIOLATION":        PolicyViolation,
	"TRANSCRIPT_LOST":         History,
	"HISTORY_CONFLICT":        History,
	"LANE_BUSY":               LaneBusy,
	"TURN_PREEMPTED":          TurnPreempted,
	"UPSTREAM_RATE_LIMITED":   RateLimited,
	"UPSTREAM_QUOTA":          QuotaExhausted,
	"SLOW_READER":             SlowReader,
	"TURN_DRAINED":            TurnInterrupted,
}

var kindOfCode = map[codes.Code]Kind{
	codes.Canceled:           TurnCancelled,
	codes.Unknown:            ServerFault,
	codes.InvalidArgument:    InvalidRequest,
	codes.DeadlineExceeded:   DeadlineExceeded,
	codes.NotFound:           NotFound,
	codes.AlreadyExists:      Conflict,
	codes.PermissionDenied:   PermissionDenied,
	codes.ResourceExhausted:  LimitExceeded,
	codes.FailedPrecondition: Precondition,
	codes.Aborted:            TurnInterrupted,
	codes.OutOfRange:         InvalidRequest,
	codes.Unimplemented:      NotImplementedByServer,
	codes.Internal:           ServerFault,
	codes.Unavailable:        Unavailable,
	codes.DataLoss:           ServerFault,
	codes.Unauthenticated:    Unauthenticated,
}

// A FieldViolation is a field of the request that has a value which is not allowed.
type FieldViolation struct{ Field, Description string }

// A QuotaViolation is a limit that was met.
type QuotaViolation struct{ Subject, Description string }

// Error is how a call fails; ask for it with errors.As. Blank and nil mean: not told.
type Error struct {
	Kind    Kind
	Code    codes.Code // OK for a failure that the client itself found.
	Message string     // Has no words of prompts or answers; the provider's own are in Upstream.
	Reason  string     // A name of warmlinev1.ErrorReason without its prefix.

	TurnID            string
	RequestID         string
	ResponseID        string
	UpstreamRequestID string
	Attempts          int // Made upstream; 0: not told.

	RetryAfter      *time.Duration // The same call may be sent again after this long; nil: the server did not say so.
	FieldViolations []FieldViolation
	QuotaViolations []QuotaViolation
	Upstream        *warmlinev1.UpstreamError // The provider's own words, verbatim.

	isTransportFailure bool
	cause              error
}

// Error says what failed, with the ids to search for.
func (e *Error) Error() string {
	name := e.Reason
	if name == "" {
		name = string(e.Kind)
	}
	var ids []string
	for _, id := range [][2]string{
		{"turn", e.TurnID}, {"response", e.ResponseID}, {"upstream request", e.UpstreamRequestID},
	} {
		if id[1] != "" {
			ids = append(ids, id[0]+" "+id[1])
		}
	}
	text := name + ": " + e.Message
	if len(ids) > 0 {
		text += " (" + strings.Join(ids, ", ") + ")"
	}
	return text
}

// Is says whether this is the error's kind.
func (e *Error) Is(target error) bool {
	kind, ok := target.(Kind)
	return ok && kind == e.Kind
}

// Unwrap gives what gRPC said; nil for a failure that the client itself found.
func (e *Error) Unwrap() error { return e.cause }

// facts are the ids that are known about a call.
type facts struct {
	turnID, requestID, responseID, upstreamRequestID string
	attempts                                         int
}

func (e *Error) facts() facts {
	return facts{e.TurnID, e.RequestID, e.ResponseID, e.UpstreamRequestID, e.Attempts}
}

// newError makes the error of a failure that the client itself found.
func newError(kind Kind, known facts, format string, arguments ...any) *Error {
	return &Error{
		Kind: kind, Message: fmt.Sprintf(format, arguments...), TurnID: known.turnID, RequestID: known.requestID,
		ResponseID: known.responseID, UpstreamRequestID: known.upstreamRequestID, Attempts: known.attempts,
	}
}

// fromStatus makes the error of a status; what the server tells overrules what is known.
func fromStatus(err error, known facts) *Error {
	if found := (*Error)(nil); errors.As(err, &found) {
		return found
	}
	told := status.Convert(err)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		told = status.FromContextError(err)
	}
	made := newError("", known, "%s", told.Message())
	made.Code, made.cause = told.Code(), err
	hasErrorInfo := false
	for _, detail := range told.Details() {
		_, isErrorInfo := detail.(*errdetails.ErrorInfo)
		hasErrorInfo = hasErrorInfo || isErrorInfo
		made.takeDetail(detail)
	}
	made.isTransportFailure = made.Code == codes.Unavailable && !hasErrorInfo
	var ok bool
	if made.Kind, ok = kindOfReason[made.Reason]; !ok {
		made.Kind = kindOfCode[made.Code]
	}
	return made
}

func (e *Error) takeDetail(detail any) {
	switch detail := detail.(type) {
	case *errdetails.ErrorInfo:
		e.takeErrorInfo(detail)
	case *errdetails.RetryInfo:
		after := max(0, detail.GetRetryDelay().AsDuration())
		e.RetryAfter = &after
	case *errdetails.BadRequest:
		for _, violation := range detail.GetFieldViolations() {
			e.FieldViolations = append(e.FieldViolations, FieldViolation{violation.GetField(), violation.GetDescription()})
		}
	case *errdetails.QuotaFailure:
		for _, violation := range detail.GetViolations() {
			e.QuotaViolations = append(e.QuotaViolations, QuotaViolation{violation.GetSubject(), violation.GetDescription()})
		}
	case *warmlinev1.UpstreamError:
		e.Upstream = detail
	}
}

func (e *Error) takeErrorInfo(info *errdetails.ErrorInfo) {
	if info.GetDomain() != errorDomain {
		return
	}
	e.Reason = info.GetReason()
	told := info.GetMetadata()
	for name, field := range map[string]*string{
		"turn_id": &e.TurnID, "request_id": &e.RequestID, "response_id": &e.ResponseID,
		"upstream_request_id": &e.UpstreamRequestID,
	} {
		if told[name] != "" {
			*field = told[name]
		}
	}
	if attempts, err := strconv.Atoi(told["attempts"]); err == nil {
		e.Attempts = attempts
	}
}
