import assert from "node:assert/strict";
import { test } from "node:test";

import { DEFAULT_RETRY, waitMs, type CallRetry, type Spent } from "../src/retry.js";

const UNREACHED = { retryAfterMs: undefined, isTransportFailure: true };
const told = (retryAfterMs: number): { retryAfterMs: number; isTransportFailure: boolean } => ({
  retryAfterMs,
  isTransportFailure: false,
});

for (const [name, error, spent, retry, expected] of [
  ["another failure is final", { retryAfterMs: undefined, isTransportFailure: false }, {}, {}, undefined],
  ["a server that was not reached is tried again soon", UNREACHED, {}, {}, 50],
  ["jitter lengthens the wait", UNREACHED, { jitter: 0.5 }, {}, 75],
  ["waits double", UNREACHED, { tries: 4 }, {}, 400],
  ["up to the longest", UNREACHED, { tries: 7 }, {}, 1000],
  ["the server's word counts", told(700), {}, {}, 700],
  ["also zero", told(0), {}, {}, 0],
  ["with jitter", told(700), { jitter: 0.5 }, {}, 750],
  ["the last try is the last", UNREACHED, { tries: 8 }, {}, undefined],
  ["one try is never repeated", UNREACHED, {}, { maxTries: 1 }, undefined],
  ["a wait beyond the total is not begun", told(700), { waitedMs: 29_400 }, {}, undefined],
  ["a wait beyond the deadline is not begun", told(700), { remainingMs: 700 }, {}, undefined],
  ["a wait within the deadline is", told(700), { remainingMs: 701 }, {}, 700],
] satisfies [string, Parameters<typeof waitMs>[1], Partial<Spent>, Partial<CallRetry>, number | undefined][]) {
  test(name, () => {
    const all = { tries: 1, waitedMs: 0, remainingMs: Infinity, jitter: 0, ...spent };

    assert.equal(waitMs({ ...DEFAULT_RETRY, ...retry }, error, all), expected);
  });
}
