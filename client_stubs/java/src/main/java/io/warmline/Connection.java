package io.warmline;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Pattern;

/** The channel to one server, the turns that run on it, and its unary calls with their resends. */
final class Connection {
  /** The key that proxies route by. */
  private static final Metadata.Key<String> SESSION_KEY =
      Metadata.Key.of("x-warmline-session", Metadata.ASCII_STRING_MARSHALLER);

  /** Ids that the contract allows; another one is left out of the metadata and refused by the server with its reason. */
  private static final Pattern SESSION_ID = Pattern.compile("[A-Za-z0-9._-]{1,64}");

  private final ManagedChannel transport;
  private final Channel channel;
  private final Retry retry;
  private final Optional<Duration> unaryTimeout;
  private final Set<Turn> running = ConcurrentHashMap.newKeySet();
  private final CountDownLatch closed = new CountDownLatch(1);

  Connection(ManagedChannel transport, Outgoing outgoing, Retry retry, Optional<Duration> unaryTimeout) {
    this.transport = transport;
    this.channel = ClientInterceptors.intercept(transport, outgoing);
    this.retry = retry;
    this.unaryTimeout = unaryTimeout;
  }

  Channel channel() {
    return channel;
  }

  /** The channel whose calls carry a session's key. */
  Channel channel(String sessionId) {
    if (!SESSION_ID.matcher(sessionId).matches()) {
      return channel;
    }
    var headers = new Metadata();
    headers.put(SESSION_KEY, sessionId);
    return ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  Retry retry() {
    return retry;
  }

  /** Limit of a unary call; empty: there is none. */
  Optional<Duration> unaryTimeout() {
    return unaryTimeout;
  }

  /**
   * Makes a unary call of a session, and makes it again where {@link Retry} allows it.
   *
   * @throws WarmlineException the call failed
   */
  <Q, A> A unary(Channel channel, MethodDescriptor<Q, A> method, Q request, Optional<Duration> timeout) {
    var tries = new Tries(retry, timeout, closed);
    CallOptions options = tries.deadline().map(CallOptions.DEFAULT::withDeadline).orElse(CallOptions.DEFAULT);
    while (true) {
      checkOpen();
      try {
        return ClientCalls.blockingUnaryCall(channel, method, options, request);
      } catch (StatusRuntimeException failed) {
        tries.waitOrThrow(Failures.read(failed.getStatus(), failed.getTrailers(), CallFacts.NONE, failed));
      }
    }
  }

  /** Takes note of a turn, which is cancelled when the connection closes before it is forgotten. */
  void remember(Turn turn) {
    running.add(turn);
    if (closed.getCount() == 0) {
      turn.cancel();
    }
  }

  void forget(Turn turn) {
    running.remove(turn);
  }

  void checkOpen() {
    if (closed.getCount() == 0) {
      throw new IllegalStateException("use client: it is closed");
    }
  }

  void close() {
    closed.countDown();
    // As cancelled, before the channel would end them as unreachable.
    running.forEach(Turn::cancel);
    transport.shutdownNow();
  }
}
