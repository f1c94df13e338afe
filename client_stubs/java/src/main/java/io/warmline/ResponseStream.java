package io.warmline;

import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.Status;
import java.time.Duration;
import java.util.Optional;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/**
 * One send of a server-streaming call, read a message at a time: gRPC is asked for the next when the caller wants it, so that
 * nothing is read ahead beyond gRPC's own window. One thread reads; any thread may cancel.
 */
final class ResponseStream<A> {
  /** A message, or with null for it the call's end. */
  record Arrival<A>(A message, Status status, Metadata trailers) {}

  private final ClientCall<?, A> call;
  private final BlockingQueue<Arrival<A>> arrived;

  private ResponseStream(ClientCall<?, A> call, BlockingQueue<Arrival<A>> arrived) {
    this.call = call;
    this.arrived = arrived;
  }

  /** Sends a call. What an interceptor throws, it throws. */
  static <Q, A> ResponseStream<A> send(ClientCall<Q, A> call, Q request) {
    var arrived = new LinkedBlockingQueue<Arrival<A>>();
    call.start(
        new ClientCall.Listener<A>() {
          @Override
          public void onMessage(A message) {
            arrived.add(new Arrival<>(message, null, null));
          }

          @Override
          public void onClose(Status status, Metadata trailers) {
            arrived.add(new Arrival<>(null, status, trailers));
          }
        },
        new Metadata());
    try {
      call.sendMessage(request);
      call.halfClose();
    } catch (RuntimeException error) {
      call.cancel("the request could not be sent", error);
      throw error;
    }
    return new ResponseStream<>(call, arrived);
  }

  /** Waits for the next message, or the end, after which it must not be called again. */
  Arrival<A> read() throws InterruptedException {
    call.request(1);
    return arrived.take();
  }

  /** Drops messages until the end comes, or the time has passed. */
  void awaitEnd(Duration timeout) throws InterruptedException {
    long endAtNs = System.nanoTime() + timeout.toNanos();
    Optional<Arrival<A>> found;
    do {
      call.request(1);
      found = Optional.ofNullable(arrived.poll(endAtNs - System.nanoTime(), TimeUnit.NANOSECONDS));
    } while (found.isPresent() && found.get().message() != null);
  }

  /** Cancels the call; a pending read finds its end. After the end it does nothing. */
  void cancel(String why) {
    call.cancel(why, null);
  }
}
