package io.warmline;

import io.grpc.Deadline;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/** The sends of one call: counts them, keeps their deadline, waits between them. */
final class Tries {
  private final Retry retry;
  private final Optional<Deadline> deadline;
  private final CountDownLatch stop;
  private int tries = 1;
  private Duration waited = Duration.ZERO;

  /** A call whose deadline starts now, and whose waits end early when {@code stop} is released. */
  Tries(Retry retry, Optional<Duration> timeout, CountDownLatch stop) {
    this.retry = retry;
    this.deadline = timeout.map(time -> Deadline.after(time.toNanos(), TimeUnit.NANOSECONDS));
    this.stop = stop;
  }

  /** When all sends must have ended; empty: there is no limit. */
  Optional<Deadline> deadline() {
    return deadline;
  }

  /** Waits before the next send, or throws: the failure when there shall be none, a cancel when that ended the wait. */
  void waitOrThrow(WarmlineException failure) {
    Optional<Duration> remaining =
        deadline.map(end -> Duration.ofNanos(end.timeRemaining(TimeUnit.NANOSECONDS)));
    double jitter = ThreadLocalRandom.current().nextDouble();
    Duration wait = retry.decide(failure, tries, waited, remaining, jitter).orElseThrow(() -> failure);
    try {
      if (stop.await(wait.toNanos(), TimeUnit.NANOSECONDS)) {
        throw cancelled("the call was cancelled by the client", failure);
      }
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
      throw cancelled("the calling thread was interrupted", failure);
    }
    tries++;
    waited = waited.plus(wait);
  }

  private static WarmlineException cancelled(String why, WarmlineException failure) {
    var cancelled = WarmlineException.here(WarmlineException.TurnCancelled::new, why, failure.facts());
    cancelled.initCause(failure);
    return cancelled;
  }
}
