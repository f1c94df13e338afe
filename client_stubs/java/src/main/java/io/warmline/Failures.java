package io.warmline;

import static java.util.Map.entry;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.warmline.v1.UpstreamError;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;

/** Makes the typed exception of a status: the only place that reads statuses and their details. */
final class Failures {
  /** Domain of the server's {@code google.rpc.ErrorInfo}. */
  private static final String DOMAIN = "warmline";

  /** Longest delay that a RetryInfo can mean, so that no sum overflows. */
  private static final long LONGEST_DELAY_S = 315_576_000_000L;

  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  /** Reasons that a caller treats otherwise than their status code says; all others go by the code. */
  private static final Map<String, Function<Failure, WarmlineException>> BY_REASON =
      Map.ofEntries(
          entry("SESSION_NOT_FOUND", WarmlineException.SessionNotFound::new),
          entry("TURN_NOT_FOUND", WarmlineException.TurnNotFound::new),
          entry("SESSION_CONFIG_CONFLICT", WarmlineException.SessionConflict::new),
          entry("REQUEST_ID_REUSED", WarmlineException.RequestIdReused::new),
          entry("SESSION_CLOSED", WarmlineException.SessionClosed::new),
          entry("UPSTREAM_AUTH", WarmlineException.UpstreamSetup::new),
          entry("UPSTREAM_PERMISSION", WarmlineException.UpstreamSetup::new),
          entry("UPSTREAM_NOT_FOUND", WarmlineException.UpstreamSetup::new),
          entry("CONTEXT_TOO_LONG", WarmlineException.ContextTooLong::new),
          entry("POLICY_VIOLATION", WarmlineException.PolicyViolation::new),
          entry("TRANSCRIPT_LOST", WarmlineException.History::new),
          entry("HISTORY_CONFLICT", WarmlineException.History::new),
          entry("LANE_BUSY", WarmlineException.LaneBusy::new),
          entry("TURN_PREEMPTED", WarmlineException.TurnPreempted::new),
          entry("UPSTREAM_RATE_LIMITED", WarmlineException.RateLimited::new),
          entry("UPSTREAM_QUOTA", WarmlineException.QuotaExhausted::new),
          entry("SLOW_READER", WarmlineException.SlowReader::new),
          entry("TURN_DRAINED", WarmlineException.TurnInterrupted::new));

  private static final Map<Status.Code, Function<Failure, WarmlineException>> BY_CODE =
      Map.ofEntries(
          entry(Status.Code.CANCELLED, WarmlineException.TurnCancelled::new),
          entry(Status.Code.UNKNOWN, WarmlineException.ServerFault::new),
          entry(Status.Code.INVALID_ARGUMENT, WarmlineException.InvalidRequest::new),
          entry(Status.Code.DEADLINE_EXCEEDED, WarmlineException.DeadlineExceeded::new),
          entry(Status.Code.NOT_FOUND, WarmlineException.NotFound::new),
          entry(Status.Code.ALREADY_EXISTS, WarmlineException.Conflict::new),
          entry(Status.Code.PERMISSION_DENIED, WarmlineException.PermissionDenied::new),
          entry(Status.Code.RESOURCE_EXHAUSTED, WarmlineException.LimitExceeded::new),
          entry(Status.Code.FAILED_PRECONDITION, WarmlineException.Precondition::new),
          entry(Status.Code.ABORTED, WarmlineException.TurnInterrupted::new),
          entry(Status.Code.OUT_OF_RANGE, WarmlineException.InvalidRequest::new),
          entry(Status.Code.UNIMPLEMENTED, WarmlineException.NotImplementedByServer::new),
          entry(Status.Code.INTERNAL, WarmlineException.ServerFault::new),
          entry(Status.Code.UNAVAILABLE, WarmlineException.Unavailable::new),
          entry(Status.Code.DATA_LOSS, WarmlineException.ServerFault::new),
          entry(Status.Code.UNAUTHENTICATED, WarmlineException.Unauthenticated::new));

  private Failures() {}

  /**
   * Makes the exception of a status that is not OK.
   *
   * @param trailers null: there are none
   * @param known the caller's own facts, which the server's overrule
   * @param cause gRPC's exception
   */
  static WarmlineException read(Status told, Metadata trailers, CallFacts known, Throwable cause) {
    Status status = unwrapped(told);
    List<Any> details = details(trailers);
    Optional<ErrorInfo> warmlines = find(details, ErrorInfo.class).filter(info -> info.getDomain().equals(DOMAIN));
    ErrorInfo info = warmlines.orElse(ErrorInfo.getDefaultInstance());
    boolean isTransportFailure =
        status.getCode() == Status.Code.UNAVAILABLE && details.stream().noneMatch(detail -> detail.is(ErrorInfo.class));
    var failure =
        new Failure(
            status.getDescription() == null ? "no message" : status.getDescription(),
            status.getCode(),
            info.getReason(),
            told(info, "turn_id").orElse(known.turnId()),
            told(info, "request_id").orElse(known.requestId()),
            told(info, "response_id").orElse(known.responseId()),
            told(info, "upstream_request_id").orElse(known.upstreamRequestId()),
            attempts(info, known.attempts()),
            find(details, RetryInfo.class).map(Failures::delay).orElse(null),
            fieldViolations(details),
            quotaViolations(details),
            find(details, UpstreamError.class).orElse(null),
            isTransportFailure);
    Function<Failure, WarmlineException> byCode = BY_CODE.get(status.getCode());
    WarmlineException made = BY_REASON.getOrDefault(info.getReason(), byCode).apply(failure);
    made.initCause(cause);
    return made;
  }

  /** What really happened where gRPC could not read a message: it says CANCELLED, and has INTERNAL as the cause. */
  private static Status unwrapped(Status status) {
    boolean isUnreadable =
        status.getCode() == Status.Code.CANCELLED
            && status.getCause() instanceof StatusRuntimeException cause
            && cause.getStatus().getCode() == Status.Code.INTERNAL;
    return isUnreadable ? Status.fromThrowable(status.getCause()) : status;
  }

  /** Empty also where they cannot be read: a proxy's own bytes, say. */
  private static List<Any> details(Metadata trailers) {
    byte[] found = trailers == null ? null : trailers.get(DETAILS);
    try {
      return found == null ? List.of() : com.google.rpc.Status.parseFrom(found).getDetailsList();
    } catch (InvalidProtocolBufferException unreadable) {
      return List.of();
    }
  }

  /** The last detail of that type that can be read. */
  private static <M extends Message> Optional<M> find(List<Any> details, Class<M> type) {
    Optional<M> found = Optional.empty();
    for (Any detail : details) {
      try {
        found = detail.is(type) ? Optional.of(detail.unpack(type)) : found;
      } catch (InvalidProtocolBufferException unreadable) {
        continue;
      }
    }
    return found;
  }

  private static Optional<String> told(ErrorInfo info, String name) {
    return Optional.of(info.getMetadataOrDefault(name, "")).filter(text -> !text.isEmpty());
  }

  private static int attempts(ErrorInfo info, int known) {
    String told = info.getMetadataOrDefault("attempts", "");
    return told.matches("[0-9]{1,9}") ? Integer.parseInt(told) : known;
  }

  private static Duration delay(RetryInfo info) {
    long seconds = Math.min(info.getRetryDelay().getSeconds(), LONGEST_DELAY_S);
    Duration delay = Duration.ofSeconds(Math.max(seconds, -1), info.getRetryDelay().getNanos());
    return delay.isNegative() ? Duration.ZERO : delay;
  }

  private static List<FieldViolation> fieldViolations(List<Any> details) {
    return find(details, BadRequest.class).map(BadRequest::getFieldViolationsList).orElse(List.of()).stream()
        .map(found -> new FieldViolation(found.getField(), found.getDescription()))
        .toList();
  }

  private static List<QuotaViolation> quotaViolations(List<Any> details) {
    return find(details, QuotaFailure.class).map(QuotaFailure::getViolationsList).orElse(List.of()).stream()
        .map(found -> new QuotaViolation(found.getSubject(), found.getDescription()))
        .toList();
  }
}
