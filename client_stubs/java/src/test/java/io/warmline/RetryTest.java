package io.warmline;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.google.rpc.RetryInfo;
import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

class RetryTest {
  private static final Optional<Duration> NEVER = Optional.empty();
  private static final Optional<Duration> UNBOUNDED = Optional.empty();

  private static WarmlineException unreached() {
    return Failures.read(Status.UNAVAILABLE, null, CallFacts.NONE, null);
  }

  private static WarmlineException told(long seconds) {
    var info = RetryInfo.newBuilder().setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(seconds));
    var refusal = FakeServer.refusal(Status.Code.UNAVAILABLE, "SERVER_DRAINING", info.build());
    return Failures.read(refusal.getStatus(), refusal.getTrailers(), CallFacts.NONE, refusal);
  }

  private static WarmlineException untold() {
    var refusal = FakeServer.refusal(Status.Code.UNAVAILABLE, "TURN_DRAINED");
    return Failures.read(refusal.getStatus(), refusal.getTrailers(), CallFacts.NONE, refusal);
  }

  static Stream<Arguments> waits() {
    return Stream.of(
        Arguments.of(unreached(), 1, 0, UNBOUNDED, 0.0, milliseconds(50)),
        Arguments.of(unreached(), 3, 0, UNBOUNDED, 0.5, milliseconds(300)),
        Arguments.of(unreached(), 7, 0, UNBOUNDED, 0.0, milliseconds(1000)),
        Arguments.of(unreached(), 8, 0, UNBOUNDED, 0.0, NEVER),
        Arguments.of(unreached(), 1, 30_000, UNBOUNDED, 0.0, NEVER),
        Arguments.of(unreached(), 1, 0, milliseconds(50), 0.0, NEVER),
        Arguments.of(unreached(), 1, 0, milliseconds(51), 0.0, milliseconds(50)),
        Arguments.of(told(2), 1, 0, UNBOUNDED, 0.5, milliseconds(2050)),
        Arguments.of(told(31), 1, 0, UNBOUNDED, 0.0, NEVER),
        Arguments.of(told(Long.MAX_VALUE), 1, 0, UNBOUNDED, 0.0, NEVER),
        Arguments.of(told(Long.MIN_VALUE), 1, 0, UNBOUNDED, 0.0, milliseconds(0)),
        Arguments.of(untold(), 1, 0, UNBOUNDED, 0.0, NEVER));
  }

  @ParameterizedTest
  @MethodSource("waits")
  void decides(
      WarmlineException failure,
      int tries,
      int waitedMs,
      Optional<Duration> remaining,
      double jitter,
      Optional<Duration> expected) {
    assertEquals(
        expected, Retry.DEFAULT.decide(failure, tries, Duration.ofMillis(waitedMs), remaining, jitter));
  }

  private static Optional<Duration> milliseconds(long time) {
    return Optional.of(Duration.ofMillis(time));
  }
}
