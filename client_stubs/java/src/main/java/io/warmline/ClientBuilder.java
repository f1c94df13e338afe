package io.warmline;

import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.TlsChannelCredentials;
import java.time.Duration;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/** What a connection will be, begun by {@link Client#builder}. */
public final class ClientBuilder {
  /** Longest message both ways: a conversation with several images inline. */
  public static final int DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

  private static final Pattern LOOPBACK =
      Pattern.compile("(?:dns:/*)?(?:127\\.[\\d.]+|localhost|\\[::1])(?::\\d+)?|unix:.*");

  private final String target;
  private ChannelCredentials credentials = InsecureChannelCredentials.create();
  private String serverName;
  private Supplier<String> token;
  private boolean allowPlaintextToken;
  private int maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES;
  private Duration keepalive = Duration.ofSeconds(30);
  private Duration keepaliveTimeout = Duration.ofSeconds(10);
  private Retry retry = Retry.DEFAULT;
  private Optional<Duration> unaryTimeout = Optional.of(Duration.ofSeconds(30));
  private Consumer<ManagedChannelBuilder<?>> configure = channel -> {};

  ClientBuilder(String target) {
    this.target = Objects.requireNonNull(target);
  }

  /**
   * Uses TLS with the roots of the Java platform. Without it the connection is in plain text.
   *
   * @return this
   */
  public ClientBuilder tls() {
    return tls(TlsChannelCredentials.create());
  }

  /**
   * Uses TLS with roots of your own, or with a certificate and key of your own (mTLS).
   *
   * @param credentials as of {@link TlsChannelCredentials#newBuilder}
   * @return this
   */
  public ClientBuilder tls(ChannelCredentials credentials) {
    this.credentials = Objects.requireNonNull(credentials);
    return this;
  }

  /**
   * Expects this name in the server's certificate, instead of the host that is dialled.
   *
   * @param name a host's name
   * @return this
   */
  public ClientBuilder serverName(String name) {
    this.serverName = Objects.requireNonNull(name);
    return this;
  }

  /**
   * Sends a bearer token with each call.
   *
   * @param token printable ASCII
   * @return this
   */
  public ClientBuilder token(String token) {
    Objects.requireNonNull(token);
    return token(() -> token);
  }

  /**
   * Sends the bearer token that is current.
   *
   * @param token asked before each call, on the calling thread; what it throws, the call throws
   * @return this
   */
  public ClientBuilder token(Supplier<String> token) {
    this.token = Objects.requireNonNull(token);
    return this;
  }

  /**
   * Sends a token beyond this machine without TLS, where something else encrypts.
   *
   * @return this
   */
  public ClientBuilder allowPlaintextToken() {
    this.allowPlaintextToken = true;
    return this;
  }

  /**
   * Sets the longest message, both ways; else {@link #DEFAULT_MAX_MESSAGE_BYTES}.
   *
   * @param bytes at least 1
   * @return this
   */
  public ClientBuilder maxMessageBytes(int bytes) {
    this.maxMessageBytes = bytes;
    return this;
  }

  /**
   * Pings after some time without traffic while a call runs; else after 30 s, waiting 10 s. The server must allow the interval.
   *
   * @param interval at least 10 s, gRPC's own limit
   * @param timeout the connection counts as lost without an answer for this long
   * @return this
   */
  public ClientBuilder keepalive(Duration interval, Duration timeout) {
    this.keepalive = Objects.requireNonNull(interval);
    this.keepaliveTimeout = Objects.requireNonNull(timeout);
    return this;
  }

  /**
   * Limits the client's own resends; else {@link Retry#DEFAULT}.
   *
   * @param retry the limits
   * @return this
   */
  public ClientBuilder retry(Retry retry) {
    this.retry = Objects.requireNonNull(retry);
    return this;
  }

  /**
   * Bounds every call of the client's own but turns, with all its sends; else 30 s.
   *
   * @param timeout zero: not at all
   * @return this
   */
  public ClientBuilder unaryTimeout(Duration timeout) {
    this.unaryTimeout = Optional.of(timeout).filter(time -> !time.isZero());
    return this;
  }

  /**
   * Sets gRPC's own options, over those made here.
   *
   * @param configure given gRPC's builder
   * @return this
   */
  public ClientBuilder configure(Consumer<ManagedChannelBuilder<?>> configure) {
    this.configure = Objects.requireNonNull(configure);
    return this;
  }

  /**
   * Makes the client; the first call dials.
   *
   * @return the client
   * @throws IllegalArgumentException a token would go beyond this machine in plain text, or gRPC refuses the target
   */
  public Client build() {
    boolean isPlaintext = credentials instanceof InsecureChannelCredentials;
    if (token != null && isPlaintext && !allowPlaintextToken && !isLoopback(target)) {
      throw new IllegalArgumentException(
          "open client: a token would go to " + target
              + " in plain text; give tls, or allowPlaintextToken where something else encrypts");
    }
    ManagedChannel channel = channel();
    var redial = new Redial(channel, retry.shortestWait());
    var outgoing = new Outgoing(Optional.ofNullable(token), TraceContext.find(), maxMessageBytes, redial);
    return new Client(new Connection(channel, outgoing, retry, unaryTimeout));
  }

  private ManagedChannel channel() {
    ManagedChannelBuilder<?> channel =
        Grpc.newChannelBuilder(target, credentials)
            // gRPC's own resends would run a paid call twice without a word; Retry decides instead.
            .disableRetry()
            .disableServiceConfigLookUp()
            .maxInboundMessageSize(maxMessageBytes)
            .keepAliveTime(keepalive.toNanos(), TimeUnit.NANOSECONDS)
            .keepAliveTimeout(keepaliveTimeout.toNanos(), TimeUnit.NANOSECONDS)
            .userAgent("warmline-java/" + Client.VERSION);
    if (serverName != null) {
      channel.overrideAuthority(serverName);
    }
    if (isLoopback(target)) {
      channel.proxyDetector(address -> null);
    }
    configure.accept(channel);
    return channel.build();
  }

  /** Whether the target is this machine, by its spelling. */
  static boolean isLoopback(String target) {
    return LOOPBACK.matcher(target).matches();
  }
}
