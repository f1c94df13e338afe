package io.warmline;

import io.grpc.Status;
import io.warmline.v1.UpstreamError;
import java.io.Serializable;
import java.time.Duration;
import java.util.List;

/** What is known about a failure; blank, null, empty and 0: not told. */
record Failure(
    String message,
    Status.Code code,
    String reason,
    String turnId,
    String requestId,
    String responseId,
    String upstreamRequestId,
    int attempts,
    Duration retryAfter,
    List<FieldViolation> fieldViolations,
    List<QuotaViolation> quotaViolations,
    UpstreamError upstream,
    boolean isTransportFailure)
    implements Serializable {

  /** A failure that the client itself found. */
  static Failure here(String message, CallFacts known) {
    return new Failure(
        message, null, "", known.turnId(), known.requestId(), known.responseId(), known.upstreamRequestId(),
        known.attempts(), null, List.of(), List.of(), null, false);
  }

  CallFacts facts() {
    return new CallFacts(turnId, requestId, responseId, upstreamRequestId, attempts);
  }
}
