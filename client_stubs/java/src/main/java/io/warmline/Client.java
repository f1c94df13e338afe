package io.warmline;

import io.grpc.Channel;
import io.warmline.v1.SessionConfig;
import java.util.Optional;

/** A connection to a Warmline server. Any number of threads may use it. */
public final class Client implements AutoCloseable {
  /** Version of this library, told to the server as part of the user agent. */
  public static final String VERSION = "0.1.0";

  private final Connection connection;

  Client(Connection connection) {
    this.connection = connection;
  }

  /**
   * Begins a client; {@link ClientBuilder#build} makes it.
   *
   * @param target host and port, or any name that gRPC resolves
   * @return what the connection will be
   */
  public static ClientBuilder builder(String target) {
    return new ClientBuilder(target);
  }

  /**
   * Begins a session of this client's own; {@link SessionBuilder#open} creates it.
   *
   * @param id 1 to 64 of {@code [A-Za-z0-9._-]}
   * @return what the session will be
   */
  public SessionBuilder session(String id) {
    return new SessionBuilder(connection, id, SessionConfig.getDefaultInstance());
  }

  /**
   * Joins a session that another made: no config is sent, and while it is missing its calls fail with {@link
   * WarmlineException.SessionNotFound}.
   *
   * @param id the session's
   * @return the session; nothing is sent yet
   */
  public Session attach(String id) {
    return new Session(connection, id, Optional.empty(), false);
  }

  /**
   * gRPC's own channel, for every stub of {@code io.warmline.v1}: {@code TraceServiceGrpc.newBlockingStub(client.channel())}. Its
   * calls carry the token and the trace context, and fail with gRPC's exceptions; nothing is sent again.
   *
   * @return the channel; it is closed with the client
   */
  public Channel channel() {
    return connection.channel();
  }

  /** Closes the connection; turns that run are cancelled. */
  @Override
  public void close() {
    connection.close();
  }
}
