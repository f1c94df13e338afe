package io.warmline;

import io.grpc.Status;
import io.warmline.v1.UpstreamError;
import java.time.Duration;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/**
 * A call failed; there is one class for each thing that you would do about it. The message has no words of prompts or answers;
 * the provider's own are in {@link #upstream}.
 */
public abstract class WarmlineException extends RuntimeException {
  /** All that is known. */
  private final Failure failure;

  private WarmlineException(Failure failure) {
    super(failure.message());
    this.failure = failure;
  }

  /** A failure that the client itself found. */
  static <E extends WarmlineException> E here(Function<Failure, E> kind, String message, CallFacts known) {
    return kind.apply(Failure.here(message, known));
  }

  /**
   * Status of the call.
   *
   * @return empty for a failure that the client itself found
   */
  public Optional<Status.Code> code() {
    return Optional.ofNullable(failure.code());
  }

  /**
   * A name of {@code warmline.v1.ErrorReason} without its prefix.
   *
   * @return blank: not told
   */
  public String reason() {
    return failure.reason();
  }

  /**
   * The turn.
   *
   * @return blank: not told
   */
  public String turnId() {
    return failure.turnId();
  }

  /**
   * The call.
   *
   * @return blank: not told
   */
  public String requestId() {
    return failure.requestId();
  }

  /**
   * The response that was seen.
   *
   * @return blank: none
   */
  public String responseId() {
    return failure.responseId();
  }

  /**
   * The provider's id of the request.
   *
   * @return empty: unknown
   */
  public Optional<String> upstreamRequestId() {
    return Optional.ofNullable(failure.upstreamRequestId());
  }

  /**
   * Attempts made upstream.
   *
   * @return empty: not told
   */
  public OptionalInt attempts() {
    return failure.attempts() == 0 ? OptionalInt.empty() : OptionalInt.of(failure.attempts());
  }

  /**
   * The same call may be sent again after this long.
   *
   * @return empty: the server did not say so
   */
  public Optional<Duration> retryAfter() {
    return Optional.ofNullable(failure.retryAfter());
  }

  /**
   * What is wrong with the request.
   *
   * @return in the server's order
   */
  public List<FieldViolation> fieldViolations() {
    return failure.fieldViolations();
  }

  /**
   * The limits that were met.
   *
   * @return in the server's order
   */
  public List<QuotaViolation> quotaViolations() {
    return failure.quotaViolations();
  }

  /**
   * The provider's own words, verbatim.
   *
   * @return empty: not told
   */
  public Optional<UpstreamError> upstream() {
    return Optional.ofNullable(failure.upstream());
  }

  /** What failed, with the ids to search for. */
  @Override
  public String getMessage() {
    String name = failure.reason().isEmpty() ? getClass().getSimpleName() : failure.reason();
    String ids =
        Stream.of(
                labelled("turn", failure.turnId()),
                labelled("response", failure.responseId()),
                labelled("upstream request", failure.upstreamRequestId()))
            .flatMap(Optional::stream)
            .collect(Collectors.joining(", "));
    return name + ": " + failure.message() + (ids.isEmpty() ? "" : " (" + ids + ")");
  }

  /** Whether it is UNAVAILABLE without ErrorInfo: the server was not reached, or the connection to it was lost. */
  boolean isTransportFailure() {
    return failure.isTransportFailure();
  }

  CallFacts facts() {
    return failure.facts();
  }

  private static Optional<String> labelled(String label, String id) {
    return id == null || id.isEmpty() ? Optional.empty() : Optional.of(label + " " + id);
  }

  /** The request is wrong: change it. {@link #fieldViolations} or {@link #upstream} say what about it. */
  public static final class InvalidRequest extends WarmlineException {
    InvalidRequest(Failure failure) {
      super(failure);
    }
  }

  /** What the request names does not exist. */
  public static class NotFound extends WarmlineException {
    NotFound(Failure failure) {
      super(failure);
    }
  }

  /** No such session: create it, or send its config with the turn. */
  public static final class SessionNotFound extends NotFound {
    SessionNotFound(Failure failure) {
      super(failure);
    }
  }

  /** No running call matches: it has ended. */
  public static final class TurnNotFound extends NotFound {
    TurnNotFound(Failure failure) {
      super(failure);
    }
  }

  /** The id is taken. */
  public static class Conflict extends WarmlineException {
    Conflict(Failure failure) {
      super(failure);
    }
  }

  /** The session exists with another config: use that config or another id. */
  public static final class SessionConflict extends Conflict {
    SessionConflict(Failure failure) {
      super(failure);
    }
  }

  /** A call of this request id is running or has completed: do not send it again. */
  public static final class RequestIdReused extends Conflict {
    RequestIdReused(Failure failure) {
      super(failure);
    }
  }

  /** The call cannot succeed until something else has changed. */
  public static class Precondition extends WarmlineException {
    Precondition(Failure failure) {
      super(failure);
    }
  }

  /** The session was closed meanwhile: start a new one. */
  public static final class SessionClosed extends Precondition {
    SessionClosed(Failure failure) {
      super(failure);
    }
  }

  /** The provider refuses this server's credential, permission or model: its operator must act. */
  public static final class UpstreamSetup extends Precondition {
    UpstreamSetup(Failure failure) {
      super(failure);
    }
  }

  /** The conversation is longer than the model takes: shorten or compact it. */
  public static final class ContextTooLong extends Precondition {
    ContextTooLong(Failure failure) {
      super(failure);
    }
  }

  /** The provider's policy forbids the request. */
  public static final class PolicyViolation extends Precondition {
    PolicyViolation(Failure failure) {
      super(failure);
    }
  }

  /** The server's history of the lane is not the caller's: send the whole conversation. */
  public static final class History extends WarmlineException {
    History(Failure failure) {
      super(failure);
    }
  }

  /** The lane has a running call: wait for it, take another lane, or say {@link TurnBuilder#onBusy}. */
  public static final class LaneBusy extends WarmlineException {
    LaneBusy(Failure failure) {
      super(failure);
    }
  }

  /** A later call took the lane: this one is obsolete. */
  public static final class TurnPreempted extends WarmlineException {
    TurnPreempted(Failure failure) {
      super(failure);
    }
  }

  /** The call was cut after it began. What was delivered is in {@link Turn#snapshot}; decide whether to send again. */
  public static final class TurnInterrupted extends WarmlineException {
    TurnInterrupted(Failure failure) {
      super(failure);
    }
  }

  /** The provider's rate limit: wait {@link #retryAfter}. */
  public static final class RateLimited extends WarmlineException {
    RateLimited(Failure failure) {
      super(failure);
    }
  }

  /** The provider's quota or plan is used up: waiting does not help. */
  public static final class QuotaExhausted extends WarmlineException {
    QuotaExhausted(Failure failure) {
      super(failure);
    }
  }

  /** A limit of the server, or of gRPC's messages; {@link #quotaViolations} names it. */
  public static final class LimitExceeded extends WarmlineException {
    LimitExceeded(Failure failure) {
      super(failure);
    }
  }

  /** The caller read the stream too slowly. */
  public static final class SlowReader extends WarmlineException {
    SlowReader(Failure failure) {
      super(failure);
    }
  }

  /** The server or the provider cannot serve now, and no output was delivered: try again later. */
  public static final class Unavailable extends WarmlineException {
    Unavailable(Failure failure) {
      super(failure);
    }
  }

  /** The call took longer than it may. */
  public static final class DeadlineExceeded extends WarmlineException {
    DeadlineExceeded(Failure failure) {
      super(failure);
    }
  }

  /** The call was cancelled, here or by CancelTurn. */
  public static final class TurnCancelled extends WarmlineException {
    TurnCancelled(Failure failure) {
      super(failure);
    }
  }

  /** The contract has it and this server does not yet. */
  public static final class NotImplementedByServer extends WarmlineException {
    NotImplementedByServer(Failure failure) {
      super(failure);
    }
  }

  /** The server does not know who calls: give a token or a certificate. */
  public static final class Unauthenticated extends WarmlineException {
    Unauthenticated(Failure failure) {
      super(failure);
    }
  }

  /** The caller may not do this. */
  public static final class PermissionDenied extends WarmlineException {
    PermissionDenied(Failure failure) {
      super(failure);
    }
  }

  /** A fault of the server; its log has the detail under the request id. */
  public static final class ServerFault extends WarmlineException {
    ServerFault(Failure failure) {
      super(failure);
    }
  }

  /** The server sent what the contract does not allow. */
  public static class Protocol extends WarmlineException {
    Protocol(Failure failure) {
      super(failure);
    }
  }

  /** Events are missing or doubled. */
  public static final class SequenceGap extends Protocol {
    SequenceGap(Failure failure) {
      super(failure);
    }
  }

  /** A resend voided text that {@link Turn#text} had already given out; the turn itself goes on. Only with {@code REFERENCE}. */
  public static final class TextVoided extends WarmlineException {
    TextVoided(Failure failure) {
      super(failure);
    }
  }
}
