/**
 * What a call can fail with: one class per thing a caller does differently, the facts as properties.
 *
 * `fromServiceError` is the only place that reads gRPC statuses. Imports nothing of this package but the contract.
 */

import { status, type ServiceError } from "@grpc/grpc-js";

import type { Any } from "./gen/google/protobuf/any.js";
import { BadRequest, ErrorInfo, QuotaFailure, RetryInfo } from "./gen/google/rpc/error_details.js";
import { Status } from "./gen/google/rpc/status.js";
import { UpstreamError } from "./gen/warmline/v1/errors.js";

/** Domain of the server's `google.rpc.ErrorInfo`. Source: protos/warmline/v1/errors.proto. */
const DOMAIN = "warmline";
const DETAILS_KEY = "grpc-status-details-bin";

/** Name of a gRPC status. */
export type StatusName = keyof typeof status;

/** A field of the request that has a value which is not allowed. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** A limit that was met. */
export interface QuotaViolation {
  readonly subject: string;
  readonly description: string;
}

/** The provider's own words about the failure, verbatim; `status` is undefined when there was no HTTP status. */
export interface UpstreamWords {
  readonly status: number | undefined;
  readonly code: string;
  readonly type: string;
  readonly param: string;
  readonly message: string;
}

/** What is known about a failure. Blank and undefined mean: not told. */
export interface ErrorFacts {
  /** Status of the call; undefined for a failure that the client itself found. */
  readonly code: StatusName | undefined;
  /** A name of the contract's `ErrorReason`. */
  readonly reason: string;
  readonly turnId: string;
  readonly requestId: string;
  readonly responseId: string;
  readonly upstreamRequestId: string | undefined;
  /** Attempts made upstream. */
  readonly attempts: number | undefined;
  /** The same call may be sent again after this long; undefined: the server did not say so. */
  readonly retryAfterMs: number | undefined;
  readonly fieldViolations: readonly FieldViolation[];
  readonly quotaViolations: readonly QuotaViolation[];
  readonly upstream: UpstreamWords | undefined;
  /** UNAVAILABLE without ErrorInfo: the server was not reached, or the connection to it was lost. */
  readonly isTransportFailure: boolean;
}

const NO_FACTS: ErrorFacts = {
  code: undefined,
  reason: "",
  turnId: "",
  requestId: "",
  responseId: "",
  upstreamRequestId: undefined,
  attempts: undefined,
  retryAfterMs: undefined,
  fieldViolations: [],
  quotaViolations: [],
  upstream: undefined,
  isTransportFailure: false,
};

/** A call failed. The message has no words of prompts or answers; the provider's own are in `upstream`. */
export class WarmlineError extends Error implements ErrorFacts {
  readonly code: StatusName | undefined;
  readonly reason: string;
  readonly turnId: string;
  readonly requestId: string;
  readonly responseId: string;
  readonly upstreamRequestId: string | undefined;
  readonly attempts: number | undefined;
  readonly retryAfterMs: number | undefined;
  readonly fieldViolations: readonly FieldViolation[];
  readonly quotaViolations: readonly QuotaViolation[];
  readonly upstream: UpstreamWords | undefined;
  readonly isTransportFailure: boolean;

  constructor(message: string, known: Partial<ErrorFacts> = {}, options?: ErrorOptions) {
    const facts = { ...NO_FACTS, ...known };
    super(described(message, facts), options);
    this.name = new.target.name;
    this.code = facts.code;
    this.reason = facts.reason;
    this.turnId = facts.turnId;
    this.requestId = facts.requestId;
    this.responseId = facts.responseId;
    this.upstreamRequestId = facts.upstreamRequestId;
    this.attempts = facts.attempts;
    this.retryAfterMs = facts.retryAfterMs;
    this.fieldViolations = facts.fieldViolations;
    this.quotaViolations = facts.quotaViolations;
    this.upstream = facts.upstream;
    this.isTransportFailure = facts.isTransportFailure;
  }
}

/** The request is wrong: change it. `fieldViolations` or `upstream` say what about it. */
export class InvalidRequestError extends WarmlineError {}

/** What the request names does not exist. */
export class NotFoundError extends WarmlineError {}

/** No such session: create it, or send its config with the turn. */
export class SessionNotFoundError extends NotFoundError {}

/** No running call matches: it has ended. */
export class TurnNotFoundError extends NotFoundError {}

/** The id is taken. */
export class ConflictError extends WarmlineError {}

/** The session exists with another config: use that config or another id. */
export class SessionConflictError extends ConflictError {}

/** A call of this request id is running or has completed: do not send it again. */
export class RequestIdReusedError extends ConflictError {}

/** The call cannot succeed until something else has changed. */
export class PreconditionError extends WarmlineError {}

/** The session was closed meanwhile: start a new one. */
export class SessionClosedError extends PreconditionError {}

/** The provider refuses this server's credential, permission or model: its operator must act. */
export class UpstreamSetupError extends PreconditionError {}

/** The conversation is longer than the model takes: shorten or compact it. */
export class ContextTooLongError extends PreconditionError {}

/** The provider's policy forbids the request. */
export class PolicyViolationError extends PreconditionError {}

/** The server's history of the lane is not the caller's: send the whole conversation. */
export class HistoryError extends WarmlineError {}

/** The lane has a running call: wait for it, take another lane, or say `onBusy`. */
export class LaneBusyError extends WarmlineError {}

/** A later call took the lane: this one is obsolete. */
export class TurnPreemptedError extends WarmlineError {}

/** The call was cut after it began. What was delivered is in `turn.snapshot()`; decide whether to send again. */
export class TurnInterruptedError extends WarmlineError {}

/** The provider's rate limit: wait `retryAfterMs`. */
export class RateLimitedError extends WarmlineError {}

/** The provider's quota or plan is used up: waiting does not help. */
export class QuotaExhaustedError extends WarmlineError {}

/** A limit of the server, or of gRPC's messages; `quotaViolations` names it. */
export class LimitExceededError extends WarmlineError {}

/** The caller read the stream too slowly. */
export class SlowReaderError extends WarmlineError {}

/** The server or the provider cannot serve now, and no output was delivered: try again later. */
export class UnavailableError extends WarmlineError {}

/** The call took longer than it may. */
export class DeadlineExceededError extends WarmlineError {}

/** The call was cancelled: here (`cause` is then the signal's reason) or by CancelTurn. */
export class TurnCancelledError extends WarmlineError {}

/** The contract has it and this server does not yet. */
export class NotImplementedByServerError extends WarmlineError {}

/** The server does not know who calls: give a token or a certificate. */
export class UnauthenticatedError extends WarmlineError {}

/** The caller may not do this. */
export class PermissionDeniedError extends WarmlineError {}

/** A fault of the server; its log has the detail under the request id. */
export class ServerFaultError extends WarmlineError {}

/** The server sent what the contract does not allow. */
export class ProtocolError extends WarmlineError {}

/** Events are missing or doubled. */
export class SequenceGapError extends ProtocolError {}

/**
 * A resend voided text that `turn.text()` had already given out; the turn itself goes on.
 *
 * Only with `retry: "reference"`. Go on with `turn.result()`, or read events and honour `restarted`.
 */
export class TextVoidedError extends WarmlineError {}

type ErrorClass = new (message: string, facts?: Partial<ErrorFacts>, options?: ErrorOptions) => WarmlineError;

/** Reasons that a caller treats otherwise than their status code says; all others go by the code. */
const BY_REASON: ReadonlyMap<string, ErrorClass> = new Map<string, ErrorClass>([
  ["SESSION_NOT_FOUND", SessionNotFoundError],
  ["TURN_NOT_FOUND", TurnNotFoundError],
  ["SESSION_CONFIG_CONFLICT", SessionConflictError],
  ["REQUEST_ID_REUSED", RequestIdReusedError],
  ["SESSION_CLOSED", SessionClosedError],
  ["UPSTREAM_AUTH", UpstreamSetupError],
  ["UPSTREAM_PERMISSION", UpstreamSetupError],
  ["UPSTREAM_NOT_FOUND", UpstreamSetupError],
  ["CONTEXT_TOO_LONG", ContextTooLongError],
  ["POLICY_VIOLATION", PolicyViolationError],
  ["TRANSCRIPT_LOST", HistoryError],
  ["HISTORY_CONFLICT", HistoryError],
  ["LANE_BUSY", LaneBusyError],
  ["TURN_PREEMPTED", TurnPreemptedError],
  ["UPSTREAM_RATE_LIMITED", RateLimitedError],
  ["UPSTREAM_QUOTA", QuotaExhaustedError],
  ["SLOW_READER", SlowReaderError],
  ["TURN_DRAINED", TurnInterruptedError],
]);

const BY_CODE: ReadonlyMap<StatusName, ErrorClass> = new Map<StatusName, ErrorClass>([
  ["CANCELLED", TurnCancelledError],
  ["UNKNOWN", ServerFaultError],
  ["INVALID_ARGUMENT", InvalidRequestError],
  ["DEADLINE_EXCEEDED", DeadlineExceededError],
  ["NOT_FOUND", NotFoundError],
  ["ALREADY_EXISTS", ConflictError],
  ["PERMISSION_DENIED", PermissionDeniedError],
  ["RESOURCE_EXHAUSTED", LimitExceededError],
  ["FAILED_PRECONDITION", PreconditionError],
  ["ABORTED", TurnInterruptedError],
  ["OUT_OF_RANGE", InvalidRequestError],
  ["UNIMPLEMENTED", NotImplementedByServerError],
  ["INTERNAL", ServerFaultError],
  ["UNAVAILABLE", UnavailableError],
  ["DATA_LOSS", ServerFaultError],
  ["UNAUTHENTICATED", UnauthenticatedError],
]);

/** Makes the typed error of a status; `known` are the caller's own facts, which the server's overrule. */
export function fromServiceError(error: ServiceError, known: Partial<ErrorFacts> = {}): WarmlineError {
  const code = (status[error.code] ?? "UNKNOWN") as StatusName;
  let facts: ErrorFacts = { ...NO_FACTS, ...known, code };
  let hasErrorInfo = false;
  for (const detail of details(error)) {
    const type = detail.typeUrl.slice(detail.typeUrl.lastIndexOf("/") + 1);
    hasErrorInfo ||= type === "google.rpc.ErrorInfo";
    facts = { ...facts, ...read(type, detail.value) };
  }
  if (code === "UNAVAILABLE" && !hasErrorInfo) {
    facts = { ...facts, isTransportFailure: true };
  }
  const kind = BY_REASON.get(facts.reason) ?? BY_CODE.get(code) ?? WarmlineError;
  return new kind(error.details || "no message", facts, { cause: error });
}

/** Whether an error is a gRPC status. */
export function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && typeof error.code === "number" && "metadata" in error;
}

/** The status details; empty when there are none, or none that can be read (a proxy's own bytes, say). */
function details(error: ServiceError): readonly Any[] {
  const [value] = error.metadata.get(DETAILS_KEY);
  try {
    return value instanceof Uint8Array ? Status.decode(value).details : [];
  } catch {
    return [];
  }
}

/** What a detail says; nothing when it is of an unknown type or cannot be read. */
function read(type: string, value: Uint8Array): Partial<ErrorFacts> {
  try {
    return READERS.get(type)?.(value) ?? {};
  } catch {
    return {};
  }
}

const READERS: ReadonlyMap<string, (value: Uint8Array) => Partial<ErrorFacts>> = new Map([
  ["google.rpc.ErrorInfo", readErrorInfo],
  ["google.rpc.RetryInfo", readRetryInfo],
  ["google.rpc.BadRequest", readBadRequest],
  ["google.rpc.QuotaFailure", readQuotaFailure],
  ["warmline.v1.UpstreamError", readUpstreamError],
]);

function readErrorInfo(value: Uint8Array): Partial<ErrorFacts> {
  const { domain, reason, metadata } = ErrorInfo.decode(value);
  if (domain !== DOMAIN) {
    return {};
  }
  const { turn_id, request_id, response_id, upstream_request_id, attempts } = metadata;
  return {
    reason,
    ...(turn_id && { turnId: turn_id }),
    ...(request_id && { requestId: request_id }),
    ...(response_id && { responseId: response_id }),
    ...(upstream_request_id && { upstreamRequestId: upstream_request_id }),
    ...(attempts && /^\d+$/.test(attempts) && { attempts: Number(attempts) }),
  };
}

function readRetryInfo(value: Uint8Array): Partial<ErrorFacts> {
  const delay = RetryInfo.decode(value).retryDelay;
  return { retryAfterMs: delay ? Math.max(0, Number(delay.seconds) * 1000 + delay.nanos / 1e6) : 0 };
}

function readBadRequest(value: Uint8Array): Partial<ErrorFacts> {
  const found = BadRequest.decode(value).fieldViolations;
  return { fieldViolations: found.map(({ field, description }) => ({ field, description })) };
}

function readQuotaFailure(value: Uint8Array): Partial<ErrorFacts> {
  const found = QuotaFailure.decode(value).violations;
  return { quotaViolations: found.map(({ subject, description }) => ({ subject, description })) };
}

function readUpstreamError(value: Uint8Array): Partial<ErrorFacts> {
  const words = UpstreamError.decode(value);
  const { code, type, param, message } = words;
  return { upstream: { status: words.status, code, type, param, message } };
}

function described(message: string, facts: ErrorFacts): string {
  const name = facts.reason || facts.code;
  const ids = [
    ["turn", facts.turnId],
    ["response", facts.responseId],
    ["upstream request", facts.upstreamRequestId],
  ].flatMap(([label, id]) => (id ? [`${label} ${id}`] : []));
  return (name ? `${name}: ` : "") + message + (ids.length > 0 ? ` (${ids.join(", ")})` : "");
}
