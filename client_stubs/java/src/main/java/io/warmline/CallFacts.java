package io.warmline;

/** The ids that are known about a call; blank, null and 0: not told. */
record CallFacts(String turnId, String requestId, String responseId, String upstreamRequestId, int attempts) {
  static final CallFacts NONE = new CallFacts("", "", "", null, 0);
}
