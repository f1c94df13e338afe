package warmline

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/warmline/warmline/client_stubs/go/warmlinev1"
)

// Version of this package, told to the server as part of the user agent.
const Version = "0.1.0"

const (
	// DefaultMaxMessageBytes is the longest message both ways: a conversation with several images inline.
	DefaultMaxMessageBytes = 64 << 20

	// sessionKey is the metadata key that proxies route by.
	sessionKey = "x-warmline-session"
)

// sessionIDs that the contract allows; another one is left out of the metadata and refused by the server with its reason.
var sessionIDs = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// A Client is a connection to a server. It may be used by any number of goroutines.
type Client struct {
	// The generated stubs, as they are. Their calls carry the token and the trace context, like all others.
	Sessions warmlinev1.SessionServiceClient
	Turns    warmlinev1.TurnServiceClient
	Traces   warmlinev1.TraceServiceClient

	conn         *grpc.ClientConn
	retry        Retry
	unaryTimeout time.Duration
}

// A TokenSource gives the bearer token of a call; it is asked before each one.
type TokenSource func(context.Context) (string, error)

// A ClientOption says something about a connection.
type ClientOption func(*clientSettings)

type clientSettings struct {
	tls              *tls.Config
	token            TokenSource
	allowPlaintext   bool
	maxMessageBytes  int
	keepalive        time.Duration
	keepaliveTimeout time.Duration
	retry            Retry
	unaryTimeout     time.Duration
	dialOptions      []grpc.DialOption
}

// WithTLS uses TLS; the config's certificates make it mutual. Without it the connection is in plain text.
func WithTLS(config *tls.Config) ClientOption {
	return func(s *clientSettings) { s.tls = config }
}

// WithToken sends a bearer token with each call.
func WithToken(token string) ClientOption {
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// WithTokenSource sends the bearer token that the source gives for each call.
func WithTokenSource(source TokenSource) ClientOption {
	return func(s *clientSettings) { s.token = source }
}

// WithPlaintextToken allows a token beyond this machine without TLS, where something else encrypts.
func WithPlaintextToken() ClientOption {
	return func(s *clientSettings) { s.allowPlaintext = true }
}

// WithMaxMessageBytes sets the longest message, both ways; [DefaultMaxMessageBytes] without it.
func WithMaxMessageBytes(n int) ClientOption {
	return func(s *clientSettings) { s.maxMessageBytes = n }
}

// WithKeepalive pings after that long without traffic while a call runs, and counts the connection as lost without an
// answer for the timeout; 30 s and 10 s without it. gRPC makes an interval below 10 s that long; the server must allow it.
func WithKeepalive(interval, timeout time.Duration) ClientOption {
	return func(s *clientSettings) { s.keepalive, s.keepaliveTimeout = interval, timeout }
}

// WithRetry limits the client's own resends; [DefaultRetry] without it.
func WithRetry(retry Retry) ClientOption {
	return func(s *clientSettings) { s.retry = retry }
}

// WithUnaryTimeout bounds every call but turns whose context has no deadline; 30 s without it, 0: not at all.
func WithUnaryTimeout(timeout time.Duration) ClientOption {
	return func(s *clientSettings) { s.unaryTimeout = timeout }
}

// WithDialOptions adds gRPC's own options, over those made here.
func WithDialOptions(options ...grpc.DialOption) ClientOption {
	return func(s *clientSettings) { s.dialOptions = append(s.dialOptions, options...) }
}

// NewClient makes a client of the server at target, a host and port or any name that gRPC resolves. The first call
// dials. It fails when a token would go beyond this machine in plain text, or gRPC refuses the target.
func NewClient(target string, options ...ClientOption) (*Client, error) {
	settings := clientSettings{
		maxMessageBytes:  DefaultMaxMessageBytes,
		keepalive:        30 * time.Second,
		keepaliveTimeout: 10 * time.Second,
		retry:            DefaultRetry,
		unaryTimeout:     30 * time.Second,
	}
	for _, option := range options {
		option(&settings)
	}
	if settings.token != nil && settings.tls == nil && !settings.allowPlaintext && !isLoopback(target) {
		return nil, fmt.Errorf("open client: a token would go to %s in plain text; "+
			"give WithTLS, or WithPlaintextToken where something else encrypts", target)
	}
	conn, err := grpc.NewClient(target, dialOptions(target, &settings)...)
	if err != nil {
		return nil, fmt.Errorf("open client: %w", err)
	}
	return &Client{
		Sessions:     warmlinev1.NewSessionServiceClient(conn),
		Turns:        warmlinev1.NewTurnServiceClient(conn),
		Traces:       warmlinev1.NewTraceServiceClient(conn),
		conn:         conn,
		retry:        settings.retry,
		unaryTimeout: settings.unaryTimeout,
	}, nil
}

// Close ends the connection; calls that run are cancelled.
func (c *Client) Close() error {
	return c.conn.Close()
}

func dialOptions(target string, settings *clientSettings) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if settings.tls != nil {
		transport = credentials.NewTLS(settings.tls)
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		// gRPC's own resends would run a paid call twice without a word; Retry decides instead.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(settings.maxMessageBytes), grpc.MaxCallSendMsgSize(settings.maxMessageBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: settings.keepalive, Timeout: settings.keepaliveTimeout}),
		// gRPC's 1 s and 120 s would keep a client away from a server that has long restarted.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second,
			},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithUserAgent("warmline-go/" + Version),
		grpc.WithChainUnaryInterceptor(unaryInterceptor(settings.token)),
		grpc.WithChainStreamInterceptor(streamInterceptor(settings.token)),
	}
	if isLoopback(target) {
		options = append(options, grpc.WithNoProxy())
	}
	return append(options, settings.dialOptions...)
}

// isLoopback says whether the target is this machine, by its spelling.
func isLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	for _, scheme := range []string{"dns:", "passthrough:"} {
		target = strings.TrimLeft(strings.TrimPrefix(target, scheme), "/")
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = strings.Trim(target, "[]")
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func unaryInterceptor(token TokenSource) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
		ctx, err := outgoing(ctx, token)
		if err != nil {
			return err
		}
		return invoke(ctx, method, request, reply, conn, options...)
	}
}

func streamInterceptor(token TokenSource) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
		open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, err := outgoing(ctx, token)
		if err != nil {
			return nil, err
		}
		return open(ctx, desc, conn, method, options...)
	}
}

// outgoing adds the trace context and the token to what a call carries.
func outgoing(ctx context.Context, token TokenSource) (context.Context, error) {
	carried := propagation.MapCarrier{}
	// The global propagator does nothing until the program sets one; a span that is current is told all the same.
	propagation.TraceContext{}.Inject(ctx, carried)
	otel.GetTextMapPropagator().Inject(ctx, carried)
	for key, value := range carried {
		ctx = metadata.AppendToOutgoingContext(ctx, key, value)
	}
	if token == nil {
		return ctx, nil
	}
	current, err := token(ctx)
	if err != nil {
		failure := newError(Unauthenticated, facts{}, "get token: %v", err)
		failure.cause = err
		return nil, failure
	}
	current = strings.TrimSpace(current)
	// Said here, without the token: gRPC would put it into its error.
	if strings.ContainsFunc(current, func(r rune) bool { return r < ' ' || r > '~' }) {
		return nil, newError(Unauthenticated, facts{}, "send token: it has characters that a header cannot carry")
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+current), nil
}

// withSession adds the session's key to what a call carries.
func withSession(ctx context.Context, sessionID string) context.Context {
	if !sessionIDs.MatchString(sessionID) {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, sessionKey, sessionID)
}

// unary makes a unary call, and makes it again where [Retry] allows it.
func unary[Request, Response any](
	ctx context.Context, c *Client, sessionID string, request Request,
	method func(context.Context, Request, ...grpc.CallOption) (Response, error),
) (Response, error) {
	if _, bounded := ctx.Deadline(); !bounded && c.unaryTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.unaryTimeout)
		defer cancel()
	}
	tries := newTries(c.retry)
	for {
		response, err := method(withSession(ctx, sessionID), request)
		if err == nil {
			return response, nil
		}
		if err := tries.waitOrFail(ctx, fromStatus(err, facts{})); err != nil {
			return response, err
		}
	}
}
