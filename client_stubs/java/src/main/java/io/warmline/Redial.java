package io.warmline;

import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import java.time.Duration;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Has calls dial anew a server that could not be reached, at most as often as one call is sent again.
 *
 * <p>gRPC for Java waits 1 s, and after some failures 2 minutes, between two dials, and has no setting for it: it would keep a
 * client away from a server that has long restarted.
 */
final class Redial {
  private final ManagedChannel channel;
  private final long shortestNs;
  private final AtomicLong lastAtNs;

  Redial(ManagedChannel channel, Duration shortest) {
    this.channel = channel;
    this.shortestNs = shortest.toNanos();
    this.lastAtNs = new AtomicLong(System.nanoTime() - shortestNs);
  }

  /** Ends gRPC's wait, if it is in one. */
  void beforeCall() {
    if (channel.getState(false) != ConnectivityState.TRANSIENT_FAILURE) {
      return;
    }
    long last = lastAtNs.get();
    long now = System.nanoTime();
    if (now - last >= shortestNs && lastAtNs.compareAndSet(last, now)) {
      channel.resetConnectBackoff();
    }
  }
}
