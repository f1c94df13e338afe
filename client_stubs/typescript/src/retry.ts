/** When a call is sent again by the client: a pure decision. The server's own resends are not its concern. */

import type { ErrorFacts } from "./errors.js";

/**
 * Limits of the client's own resends of one call.
 *
 * A call is sent again only before anything of it was delivered, and only where the server said so (RetryInfo) or was
 * not reached at all (UNAVAILABLE without ErrorInfo). The defaults bridge a server's restart of some seconds.
 */
export interface CallRetry {
  /** Sends of one call, the first included; 1: never again. Default: 8. */
  readonly maxTries: number;
  /** Wait before the first resend to a server that was not reached; doubled each time. Default: 100. */
  readonly firstWaitMs: number;
  /** Longest of those waits. Default: 2000. */
  readonly longestWaitMs: number;
  /** Most waiting of one call; a wait that would pass it, or the call's deadline, is not begun. Default: 30 000. */
  readonly totalWaitMs: number;
}

export const DEFAULT_RETRY: CallRetry = { maxTries: 8, firstWaitMs: 100, longestWaitMs: 2000, totalWaitMs: 30_000 };

/** Where a call stands when it failed. */
export interface Spent {
  /** Sends so far, at least 1. */
  readonly tries: number;
  /** Waits so far. */
  readonly waitedMs: number;
  /** Until the deadline; Infinity without one. */
  readonly remainingMs: number;
  /** From 0 to below 1. */
  readonly jitter: number;
}

/** Milliseconds to wait before the next send; undefined: the error is final. */
export function waitMs(
  retry: CallRetry,
  error: Pick<ErrorFacts, "retryAfterMs" | "isTransportFailure">,
  spent: Spent,
): number | undefined {
  let wait: number;
  if (error.retryAfterMs !== undefined) {
    wait = error.retryAfterMs + spent.jitter * retry.firstWaitMs;
  } else if (error.isTransportFailure) {
    wait = Math.min(retry.longestWaitMs, retry.firstWaitMs * 2 ** (spent.tries - 1)) * (0.5 + 0.5 * spent.jitter);
  } else {
    return undefined;
  }
  if (spent.tries >= retry.maxTries || spent.waitedMs + wait > retry.totalWaitMs || wait >= spent.remainingMs) {
    return undefined;
  }
  return wait;
}
