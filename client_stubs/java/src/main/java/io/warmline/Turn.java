package io.warmline;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.StatusRuntimeException;
import io.warmline.v1.StreamTurnRequest;
import io.warmline.v1.StreamTurnResponse;
import io.warmline.v1.TurnEvent;
import io.warmline.v1.TurnServiceGrpc;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Optional;
import java.util.concurrent.CountDownLatch;

/**
 * A call, made by {@link TurnBuilder#send}. Iterate it for its events, or {@link #text} for the answer's text, or ask for the
 * {@link #result}; each reads on where the other stopped. It must be closed, best by try-with-resources, which cancels
 * what still runs, here and at the provider.
 *
 * <p>One thread reads at a time; {@link #cancel} may be called by any. A thread that is interrupted while it reads ends the
 * call.
 */
public final class Turn implements Iterable<TurnEvent>, AutoCloseable {
  /**
   * How long the server may take to end the stream after the last event, before the call is cancelled: the outcome is known by
   * then, and a call that ends by itself is not recorded as cancelled at the other end.
   */
  private static final Duration END = Duration.ofSeconds(1);

  private final Connection connection;
  private final Channel channel;
  private final StreamTurnRequest request;
  private final CountDownLatch cancelled = new CountDownLatch(1);
  private final Tries tries;
  private final TurnProgress progress;
  private final Deque<TurnEvent> ready = new ArrayDeque<>();
  private final Events events = new Events();
  private volatile ResponseStream<StreamTurnResponse> stream;
  private RuntimeException failure;
  private boolean hasEnded;

  Turn(Connection connection, Channel channel, StreamTurnRequest request, Optional<Duration> timeout) {
    this.connection = connection;
    this.channel = channel;
    this.request = request;
    this.tries = new Tries(connection.retry(), timeout, cancelled);
    this.progress = new TurnProgress(request.getTurnId(), request.getRequestId());
    connection.checkOpen();
  }

  /** Sends the call. What fails is thrown by the first read. */
  Turn begin() {
    connection.remember(this);
    try {
      send();
    } catch (RuntimeException error) {
      fail(error);
    }
    return this;
  }

  /**
   * The message as it was sent.
   *
   * @return with the request id that was made for it
   */
  public StreamTurnRequest request() {
    return request;
  }

  /**
   * The turn's id, for its tool follow-ups.
   *
   * @return blank until the server told the one it made
   */
  public String turnId() {
    return progress.facts().turnId();
  }

  /**
   * The call's id.
   *
   * @return never blank
   */
  public String requestId() {
    return progress.facts().requestId();
  }

  /**
   * The events that this client knows, as the contract has them. Reading them throws {@link WarmlineException} when the call
   * failed; again, the same.
   *
   * @return always the same iterator; a loop that is left early can be gone on with
   */
  @Override
  public Iterator<TurnEvent> iterator() {
    return events;
  }

  /**
   * The pieces of the answer's text, as they come. Reading them throws {@link WarmlineException} when the call failed, and
   * {@link WarmlineException.TextVoided} when a resend took back pieces that had been given out; the turn then goes on,
   * and can be read on by {@link #result} or {@link #iterator}.
   *
   * @return reads on where the turn stands
   */
  public Iterable<String> text() {
    return Texts::new;
  }

  /**
   * Reads the rest.
   *
   * @return the outcome; again, the same
   * @throws WarmlineException the call failed
   */
  public TurnResult result() {
    while (events.hasNext()) {
      events.next();
    }
    return snapshot();
  }

  /**
   * The outcome so far, also after a failure: what was delivered and counts.
   *
   * @return shares nothing with the turn
   */
  public TurnResult snapshot() {
    return progress.snapshot();
  }

  /** Cancels the call; a pending read throws {@link WarmlineException.TurnCancelled}. Any thread may call it. */
  public void cancel() {
    cancelled.countDown();
    connection.forget(this);
    ResponseStream<StreamTurnResponse> sent = stream;
    if (sent != null) {
      sent.cancel("left by its caller");
    }
  }

  /** Leaves the turn: cancels what still runs. It may be repeated. */
  @Override
  public void close() {
    if (progress.isOver()) {
      awaitEnd();
    }
    cancel();
  }

  /** The next event that this client knows; null after the last. */
  private TurnEvent read() {
    if (failure != null) {
      throw failure;
    }
    try {
      while (!progress.isOver()) {
        if (ready.isEmpty()) {
          fill();
        } else if (progress.accept(ready.element())) {
          return ready.remove();
        } else {
          ready.remove();
        }
      }
    } catch (RuntimeException error) {
      fail(error);
      throw error;
    }
    awaitEnd();
    cancel();
    return null;
  }

  /** Reads a message; sends the call again where that is allowed and nothing of it was delivered. */
  private void fill() {
    ResponseStream.Arrival<StreamTurnResponse> arrival = take();
    if (arrival.message() != null) {
      ready.addAll(arrival.message().getEventsList());
      return;
    }
    if (arrival.status().isOk()) {
      String text = "read turn: found the end of the stream, expected a completed or incomplete event";
      throw WarmlineException.here(WarmlineException.Protocol::new, text, progress.facts());
    }
    WarmlineException error =
        Failures.read(
            arrival.status(),
            arrival.trailers(),
            progress.facts(),
            arrival.status().asRuntimeException(arrival.trailers()));
    if (progress.hasBegun()) {
      throw error;
    }
    tries.waitOrThrow(error);
    send();
  }

  private ResponseStream.Arrival<StreamTurnResponse> take() {
    try {
      return stream.read();
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
      String text = "read turn: the reading thread was interrupted";
      throw WarmlineException.here(WarmlineException.TurnCancelled::new, text, progress.facts());
    }
  }

  private void send() {
    CallOptions options = tries.deadline().map(CallOptions.DEFAULT::withDeadline).orElse(CallOptions.DEFAULT);
    try {
      stream = ResponseStream.send(channel.newCall(TurnServiceGrpc.getStreamTurnMethod(), options), request);
    } catch (StatusRuntimeException failed) {
      throw Failures.read(failed.getStatus(), failed.getTrailers(), progress.facts(), failed);
    }
    // A cancel that came before this send could not know of it.
    if (cancelled.getCount() == 0) {
      cancel();
    }
  }

  private void fail(RuntimeException error) {
    failure = error;
    cancel();
  }

  /** Lets the server end the stream by itself; however it does, the outcome stands. */
  private void awaitEnd() {
    if (hasEnded) {
      return;
    }
    hasEnded = true;
    try {
      stream.awaitEnd(END);
    } catch (InterruptedException interrupt) {
      Thread.currentThread().interrupt();
    }
  }

  private final class Events implements Iterator<TurnEvent> {
    private TurnEvent next;

    @Override
    public boolean hasNext() {
      next = next == null ? read() : next;
      return next != null;
    }

    @Override
    public TurnEvent next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      TurnEvent event = next;
      next = null;
      return event;
    }
  }

  private final class Texts implements Iterator<String> {
    private Optional<String> next = Optional.empty();

    @Override
    public boolean hasNext() {
      while (next.isEmpty() && events.hasNext()) {
        TurnEvent event = events.next();
        if (event.hasRestarted() && progress.hasVoidedText()) {
          String text = "read text: a resend took back what was read";
          throw WarmlineException.here(WarmlineException.TextVoided::new, text, progress.facts());
        }
        next = TurnProgress.textDelta(event);
      }
      return next.isPresent();
    }

    @Override
    public String next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      String piece = next.get();
      next = Optional.empty();
      return piece;
    }
  }
}
