package io.warmline;

import io.warmline.v1.CreateSessionRequest;
import io.warmline.v1.RequestOptions;
import io.warmline.v1.SessionConfig;
import io.warmline.v1.SessionServiceGrpc;
import io.warmline.v1.WarmUpMode;
import java.util.Optional;

/** What a session will be, begun by {@link Client#session}. */
public final class SessionBuilder extends OptionsBuilder<SessionBuilder> {
  private final Connection connection;
  private final String id;
  private final SessionConfig.Builder config;
  private boolean closeOnExit;

  SessionBuilder(Connection connection, String id, SessionConfig config) {
    this.connection = connection;
    this.id = id;
    this.config = config.toBuilder();
  }

  /**
   * Gives what has no method of its own.
   *
   * @param config merged over what was said before
   * @return this
   */
  public SessionBuilder config(SessionConfig config) {
    this.config.mergeFrom(config);
    return this;
  }

  /**
   * Names the provider.
   *
   * @param name one that the server's operator configured
   * @return this
   */
  public SessionBuilder upstream(String name) {
    config.setUpstream(name);
    return this;
  }

  /**
   * Says what opens before the first turn.
   *
   * @param mode a mode of the contract
   * @return this
   */
  public SessionBuilder warmUp(WarmUpMode mode) {
    config.setWarmUp(mode);
    return this;
  }

  /**
   * Has {@link Session#close} close the session at the server; else it stays warm until it expires.
   *
   * @return this
   */
  public SessionBuilder closeOnExit() {
    closeOnExit = true;
    return this;
  }

  /**
   * Creates the session at the server, if it is not there, and so begins its warm-up.
   *
   * @return the session
   * @throws WarmlineException the server refused it
   */
  public Session open() {
    Session session = lazy();
    var request = CreateSessionRequest.newBuilder().setSessionId(id).setConfig(config).build();
    session.unary(SessionServiceGrpc.getCreateSessionMethod(), request);
    return session;
  }

  /**
   * Leaves the session's creation to its first turn.
   *
   * @return the session; nothing is sent yet
   */
  public Session lazy() {
    return new Session(connection, id, Optional.of(config.build()), closeOnExit);
  }

  @Override
  RequestOptions.Builder options() {
    return config.getRequestDefaultsBuilder();
  }

  @Override
  SessionBuilder self() {
    return this;
  }
}
