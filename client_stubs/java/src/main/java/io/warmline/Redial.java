package io.warmline;

import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Has calls dial anew a server that could not be reached, at most ten times a second.
 *
 * <p>gRPC for Java waits 1 s, and after some failures 2 minutes, between two dials, and has no setting for it: it would keep a
 * client away from a server that has long restarted.
 */
final class Redial {
  private static final long SHORTEST_NS = TimeUnit.MILLISECONDS.toNanos(100);

  private final ManagedChannel channel;
  private final AtomicLong lastAtNs = new AtomicLong(System.nanoTime() - SHORTEST_NS);

  Redial(ManagedChannel channel) {
    this.channel = channel;
  }

  /** Ends gRPC's wait, if it is in one. */
  void beforeCall() {
    if (channel.getState(false) != ConnectivityState.TRANSIENT_FAILURE) {
      return;
    }
    long last = lastAtNs.get();
    long now = System.nanoTime();
    if (now - last >= SHORTEST_NS && lastAtNs.compareAndSet(last, now)) {
      channel.resetConnectBackoff();
    }
  }
}
