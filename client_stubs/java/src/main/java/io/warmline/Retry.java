package io.warmline;

import java.time.Duration;
import java.util.Optional;

/**
 * Limits of the client's own resends of one call; the server's are not its concern.
 *
 * <p>A call is sent again only before anything of it was delivered, and only where the server said so (RetryInfo) or was
 * not reached at all (UNAVAILABLE without ErrorInfo).
 *
 * @param maxTries sends of one call, the first included; 1: never again
 * @param firstWait before the first resend to a server that was not reached; doubled each time
 * @param longestWait longest of those waits
 * @param totalWait most waiting of one call; a wait that would pass it, or the deadline, is not begun
 */
public record Retry(int maxTries, Duration firstWait, Duration longestWait, Duration totalWait) {
  /** Bridges a server's restart of some seconds. */
  public static final Retry DEFAULT =
      new Retry(8, Duration.ofMillis(100), Duration.ofSeconds(2), Duration.ofSeconds(30));

  /**
   * The same limits with other tries.
   *
   * @param tries sends of one call, the first included
   * @return the limits
   */
  public Retry withMaxTries(int tries) {
    return new Retry(tries, firstWait, longestWait, totalWait);
  }

  /**
   * Decides about a call that failed.
   *
   * @param tries sends so far, at least 1
   * @param waited waits so far
   * @param remaining until the deadline; empty: there is none
   * @param jitter from 0 to below 1
   * @return how long to wait before the next send; empty: the failure is final
   */
  Optional<Duration> decide(
      WarmlineException failure, int tries, Duration waited, Optional<Duration> remaining, double jitter) {
    Duration wait;
    if (failure.retryAfter().isPresent()) {
      wait = failure.retryAfter().get().plus(times(firstWait, jitter));
    } else if (failure.isTransportFailure()) {
      wait = times(doubled(tries - 1), 0.5 + 0.5 * jitter);
    } else {
      return Optional.empty();
    }
    boolean isFinal =
        tries >= maxTries
            || waited.plus(wait).compareTo(totalWait) > 0
            || remaining.isPresent() && wait.compareTo(remaining.get()) >= 0;
    return isFinal ? Optional.empty() : Optional.of(wait);
  }

  /** The least that it waits before it sends a call again to a server that was not reached. */
  Duration shortestWait() {
    return times(firstWait, 0.5);
  }

  private Duration doubled(int doublings) {
    Duration wait = firstWait;
    for (int done = 0; done < doublings && wait.compareTo(longestWait) < 0; done++) {
      wait = wait.multipliedBy(2);
    }
    return wait.compareTo(longestWait) < 0 ? wait : longestWait;
  }

  private static Duration times(Duration duration, double factor) {
    return Duration.ofNanos((long) (duration.toNanos() * factor));
  }
}
