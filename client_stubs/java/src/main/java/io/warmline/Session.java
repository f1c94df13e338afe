package io.warmline;

import io.grpc.Channel;
import io.grpc.MethodDescriptor;
import io.warmline.v1.CancelTurnRequest;
import io.warmline.v1.CloseSessionRequest;
import io.warmline.v1.GetSessionRequest;
import io.warmline.v1.Item;
import io.warmline.v1.PreconnectRequest;
import io.warmline.v1.SessionConfig;
import io.warmline.v1.SessionServiceGrpc;
import io.warmline.v1.Slot;
import io.warmline.v1.TurnServiceGrpc;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * One conversation's session. Its config goes with each turn, so that a restarted server is not noticed. Any number of
 * threads may use it.
 */
public final class Session implements AutoCloseable {
  /** How long leaving a session waits for its close; the server's idle expiry does the rest. */
  private static final Duration CLOSE = Duration.ofSeconds(5);

  private final Connection connection;
  private final Channel channel;
  private final String id;
  private final Optional<SessionConfig> config;
  private final boolean closeOnExit;

  Session(Connection connection, String id, Optional<SessionConfig> config, boolean closeOnExit) {
    this.connection = connection;
    this.channel = connection.channel(id);
    this.id = id;
    this.config = config;
    this.closeOnExit = closeOnExit;
  }

  /**
   * The session's id.
   *
   * @return the caller's choice
   */
  public String id() {
    return id;
  }

  /**
   * What the session is.
   *
   * @return empty: it is another's, and only attached to
   */
  public Optional<SessionConfig> config() {
    return config;
  }

  /**
   * Begins a turn; {@link TurnBuilder#send} sends it.
   *
   * @param input the conversation, oldest first
   * @return what the turn will be
   */
  public TurnBuilder turn(List<Item> input) {
    return new TurnBuilder(connection, channel, id, config, input);
  }

  /**
   * Begins a turn whose conversation is one text of the user; {@link TurnBuilder#send} sends it.
   *
   * @param text not empty
   * @return what the turn will be
   */
  public TurnBuilder turn(String text) {
    return turn(List.of(Items.user(text)));
  }

  /**
   * Asks for the session's state.
   *
   * @return the state
   * @throws WarmlineException the call failed
   */
  public io.warmline.v1.Session get() {
    var request = GetSessionRequest.newBuilder().setSessionId(id).build();
    return unary(SessionServiceGrpc.getGetSessionMethod(), request).getSession();
  }

  /**
   * Starts a warm-up if the slot is idle.
   *
   * @param await whether to return when its handshake has ended, well or not; else at once
   * @return the slot
   * @throws WarmlineException the call failed
   */
  public Slot preconnect(boolean await) {
    var request = PreconnectRequest.newBuilder().setSessionId(id).setWait(await).build();
    return unary(SessionServiceGrpc.getPreconnectMethod(), request).getSlot();
  }

  /**
   * Cancels running calls by request or turn.
   *
   * @param requestId blank: any
   * @param turnId blank: any
   * @return the request ids of those that end now
   * @throws WarmlineException.TurnNotFound none matches
   * @throws WarmlineException the call failed
   */
  public List<String> cancelTurn(String requestId, String turnId) {
    var request =
        CancelTurnRequest.newBuilder().setSessionId(id).setRequestId(requestId).setTurnId(turnId).build();
    return unary(TurnServiceGrpc.getCancelTurnMethod(), request).getRequestIdsList();
  }

  /**
   * Closes the session at the server: its running calls end with {@link WarmlineException.SessionClosed}.
   *
   * @return its last state
   * @throws WarmlineException the call failed
   */
  public io.warmline.v1.Session closeSession() {
    return closeSession(connection.unaryTimeout());
  }

  /**
   * Leaves the session: with {@link SessionBuilder#closeOnExit} it is closed at the server, else it stays warm until it
   * expires.
   *
   * @throws WarmlineException the close failed; not, where the session or the server is gone
   */
  @Override
  public void close() {
    if (!closeOnExit) {
      return;
    }
    try {
      closeSession(Optional.of(CLOSE));
    } catch (WarmlineException.NotFound | WarmlineException.Unavailable | WarmlineException.DeadlineExceeded gone) {
      // A session that is gone is closed, and a server that is gone has closed it.
    }
  }

  <Q, A> A unary(MethodDescriptor<Q, A> method, Q request) {
    return connection.unary(channel, method, request, connection.unaryTimeout());
  }

  private io.warmline.v1.Session closeSession(Optional<Duration> timeout) {
    var request = CloseSessionRequest.newBuilder().setSessionId(id).build();
    return connection.unary(channel, SessionServiceGrpc.getCloseSessionMethod(), request, timeout).getSession();
  }
}
