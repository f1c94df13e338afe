import assert from "node:assert/strict";
import { test } from "node:test";

import { Metadata, status, type ServiceError } from "@grpc/grpc-js";

import { BadRequest, QuotaFailure } from "../src/gen/google/rpc/error_details.js";
import * as warmline from "../src/index.js";
import { fromServiceError } from "../src/errors.js";
import { ErrorReason, UpstreamError } from "../src/v1.js";
import { any, errorInfo, refusal, retryInfo } from "./fake_server.js";

function failure(code: status, ...details: Parameters<typeof refusal>[1]): ServiceError {
  return Object.assign(new Error("failed"), refusal(code, details));
}

for (const [reason, kind] of [
  ["SESSION_NOT_FOUND", warmline.SessionNotFoundError],
  ["UPSTREAM_AUTH", warmline.UpstreamSetupError],
  ["UPSTREAM_PERMISSION", warmline.UpstreamSetupError],
  ["UPSTREAM_NOT_FOUND", warmline.UpstreamSetupError],
  ["TRANSCRIPT_LOST", warmline.HistoryError],
  ["HISTORY_CONFLICT", warmline.HistoryError],
  ["TURN_DRAINED", warmline.TurnInterruptedError],
  ["UPSTREAM_FAILED", warmline.TurnInterruptedError],
  ["A_LATER_REASON", warmline.TurnInterruptedError],
] as const) {
  test(`the reason ${reason} becomes ${kind.name}`, () => {
    const error = fromServiceError(failure(status.ABORTED, errorInfo(reason)));

    assert.equal(error.constructor, kind);
    assert.deepEqual([error.name, error.reason, error.code], [kind.name, reason, "ABORTED"]);
  });
}

test("every status has a type of its own or shares one by intent", () => {
  const names = Object.values(status).filter((code): code is status => typeof code === "number" && code !== status.OK);

  const kinds = names.map((code) => fromServiceError(failure(code)).name);

  assert.equal(names.length, 16);
  assert(!kinds.includes("WarmlineError"));
  assert.equal(new Set(kinds).size, 13);
});

test("a status that no contract knows is a fault of the server", () => {
  assert.equal(fromServiceError(failure(99 as status)).constructor, warmline.ServerFaultError);
});

test("the server's facts overrule the caller's, and what it does not say stays", () => {
  const info = errorInfo("UPSTREAM_RATE_LIMITED", { turn_id: "t2", upstream_request_id: "req_1", attempts: "3" });
  const words = UpstreamError.encode({
    status: 429,
    code: "slow_down",
    type: "tokens",
    param: "",
    message: "wait",
  }).finish();
  const bad = BadRequest.encode(
    BadRequest.create({ fieldViolations: [{ field: "input[0]", description: "empty" }] }),
  ).finish();
  const quota = QuotaFailure.encode(
    QuotaFailure.create({ violations: [{ subject: "lanes", description: "8" }] }),
  ).finish();

  const error = fromServiceError(
    failure(
      status.RESOURCE_EXHAUSTED,
      info,
      retryInfo(1500),
      any("warmline.v1.UpstreamError", words),
      any("google.rpc.BadRequest", bad),
      any("google.rpc.QuotaFailure", quota),
    ),
    { turnId: "t1", requestId: "r1" },
  );

  assert(error instanceof warmline.RateLimitedError);
  assert.deepEqual([error.turnId, error.requestId, error.upstreamRequestId, error.attempts], ["t2", "r1", "req_1", 3]);
  assert.equal(error.retryAfterMs, 1500);
  assert.deepEqual(error.upstream, { status: 429, code: "slow_down", type: "tokens", param: "", message: "wait" });
  assert.deepEqual(error.fieldViolations, [{ field: "input[0]", description: "empty" }]);
  assert.deepEqual(error.quotaViolations, [{ subject: "lanes", description: "8" }]);
  assert.equal(error.message, "UPSTREAM_RATE_LIMITED: refused (turn t2, upstream request req_1)");
  assert((error.cause as ServiceError).code === status.RESOURCE_EXHAUSTED);
});

test("an ErrorInfo of another domain has no reason for us, but is an ErrorInfo", () => {
  const foreign = fromServiceError(
    failure(status.UNAVAILABLE, errorInfo("LANE_BUSY", { turn_id: "t" }, "example.org")),
  );

  assert.deepEqual([foreign.reason, foreign.turnId, foreign.isTransportFailure], ["", "", false]);
  assert.equal(fromServiceError(failure(status.UNAVAILABLE)).isTransportFailure, true);
  assert.equal(fromServiceError(failure(status.ABORTED)).isTransportFailure, false);
});

test("details that cannot be read are left out one by one", () => {
  const metadata = new Metadata();
  metadata.set("grpc-status-details-bin", Buffer.from([0xff, 0xff, 0xff]));
  const unreadable = Object.assign(new Error("failed"), { code: status.ABORTED, details: "", metadata });
  const half = failure(status.ABORTED, any("google.rpc.RetryInfo", Buffer.from([0x0a, 0xff])), errorInfo("LANE_BUSY"));

  assert.equal(fromServiceError(unreadable).message, "ABORTED: no message");
  assert.deepEqual([fromServiceError(half).name, fromServiceError(half).retryAfterMs], ["LaneBusyError", undefined]);
});

test("every reason of the contract is known to the stubs by its number", () => {
  assert.equal(ErrorReason[ErrorReason.TURN_DRAINED], "TURN_DRAINED");
});
