import assert from "node:assert/strict";
import { test } from "node:test";

import { status, type Metadata } from "@grpc/grpc-js";

import {
  Client,
  LimitExceededError,
  TurnCancelledError,
  UnavailableError,
  type ClientOptions,
  type TurnOptions,
} from "../src/index.js";
import { Session, SessionState, WarmUpMode, type CreateSessionRequest, type StreamTurnRequest } from "../src/v1.js";
import {
  ADMITTED,
  COMPLETED,
  errorInfo,
  FakeServer,
  message,
  refusal,
  retryInfo,
  type TurnCall,
} from "./fake_server.js";

/** What a turn carries. */
async function sent(
  options: TurnOptions,
  client: ClientOptions = {},
): Promise<{ request: StreamTurnRequest; metadata: Metadata }> {
  let seen: TurnCall | undefined;
  await using server = await FakeServer.start(
    {
      streamTurn: (call) => {
        seen = call;
        call.write(message(1, ADMITTED, COMPLETED));
        call.end();
      },
    },
    client,
  );
  await (await server.turn(options)).result();
  assert(seen);
  return { request: seen.request, metadata: seen.metadata };
}

test("a turn carries its session's key and config, an id of its own, and no token or deadline", async () => {
  const { request, metadata } = await sent({});

  assert.deepEqual(metadata.get("x-warmline-session"), ["s1"]);
  assert.deepEqual(metadata.get("authorization"), []);
  assert.deepEqual(metadata.get("grpc-timeout"), []);
  assert.match(String(metadata.get("user-agent")[0]), /^warmline-typescript\//);
  assert.match(request.requestId, /^[0-9a-f-]{36}$/);
  assert.equal(request.sessionConfig?.requestDefaults?.model, "m");
});

test("a turn's options reach the server as the contract names them", async () => {
  const { request } = await sent({
    lane: "side",
    turnId: "t",
    requestId: "r",
    appendAt: 3,
    retry: "reference",
    onBusy: "preempt",
    events: "both",
    maxDurationMs: 1500.5,
    requestJson: { seed: 1 },
    turnMetadata: new TextEncoder().encode('{"a" :1}'),
    model: "other",
  });

  assert.deepEqual([request.lane, request.turnId, request.requestId], ["side", "t", "r"]);
  assert.deepEqual([request.inputMode, request.expectedHistoryPosition], [2, 3n]);
  assert.deepEqual([request.retry, request.onBusy, request.events], [2, 3, 3]);
  assert.deepEqual([request.maxDuration?.seconds, request.maxDuration?.nanos], [1n, 500_500_000]);
  assert.equal(Buffer.from(request.requestJson).toString(), '{"seed":1}');
  assert.equal(Buffer.from(request.turnMetadataJson).toString(), '{"a" :1}');
  assert.equal(request.options?.model, "other");
});

test("a token is asked for before each call", async () => {
  let asked = 0;
  const { metadata } = await sent({}, { token: async () => `token-${(asked += 1)} ` });

  assert.deepEqual(metadata.get("authorization"), ["Bearer token-1"]);
});

test("a token that no header can carry is refused without being told", async () => {
  await assert.rejects(
    sent({}, { token: "geheim\u00e4x" }),
    (error) => error instanceof TypeError && !error.message.includes("geheim"),
  );
});

for (const [target, options, isRefused] of [
  ["example.org:443", { token: "t" }, true],
  ["127.0.0.1.example.org:443", { token: "t" }, true],
  ["example.org:443", { token: "t", tls: true }, false],
  ["example.org:443", { token: "t", allowPlaintextToken: true }, false],
  ["example.org:443", {}, false],
  ["localhost:1", { token: "t" }, false],
  ["127.0.0.1:1", { token: "t" }, false],
  ["[::1]:1", { token: "t" }, false],
  ["unix:/run/warmline", { token: "t" }, false],
] satisfies [string, ClientOptions, boolean][]) {
  test(`a token for ${target} with ${Object.keys(options)} is ${isRefused ? "refused" : "taken"}`, () => {
    const open = (): void => new Client(target, options).close();

    if (isRefused) {
      assert.throws(open, TypeError);
    } else {
      assert.doesNotThrow(open);
    }
  });
}

test("a session is created with its config, and options are written over it", async () => {
  let request: CreateSessionRequest | undefined;
  await using server = await FakeServer.start({
    createSession: (call, answer) => {
      request = call.request;
      answer(null, { session: undefined, created: true });
    },
  });

  await server.client.session("s1", {
    config: {
      upstream: "one",
      warmUp: WarmUpMode.NONE,
      requestDefaults: { instructions: "kept", reasoning: { summary: "auto" } },
    },
    upstream: "two",
    reasoningEffort: "low",
  });

  assert.deepEqual([request?.config?.upstream, request?.config?.warmUp], ["two", WarmUpMode.NONE]);
  const { instructions, reasoning } = request?.config?.requestDefaults ?? {};
  assert.deepEqual([instructions, reasoning?.effort, reasoning?.summary], ["kept", "low", "auto"]);
});

test("attaching takes no config", async () => {
  await using server = await FakeServer.start({});

  await assert.rejects(server.client.session("s1", { start: "attach", model: "m" }), TypeError);
  assert.equal((await server.client.session("s1", { start: "attach" })).config, undefined);
});

test("an option or a mode that there is not is refused", async () => {
  await using server = await FakeServer.start({});
  const session = await server.client.session("s1", { start: "lazy" });

  assert.throws(() => session.turn("x", { modell: "m" } as TurnOptions), /unknown modell/);
  assert.throws(() => session.turn("x", { retry: "sometimes" } as unknown as TurnOptions), TypeError);
});

test("a unary call is sent again where the server says so, and its error is typed", async () => {
  await using server = await FakeServer.start(
    {
      createSession: (_call, answer, sends) =>
        sends < 2
          ? answer(refusal(status.UNAVAILABLE, [errorInfo("SERVER_DRAINING"), retryInfo(1)]))
          : answer(refusal(status.RESOURCE_EXHAUSTED, [errorInfo("LIMIT_EXCEEDED")])),
    },
    { retry: { firstWaitMs: 1 } },
  );

  await assert.rejects(server.client.session("s1"), LimitExceededError);

  assert.equal(server.sends, 2);
});

test("a signal cancels a unary call", async () => {
  await using server = await FakeServer.start({ createSession: () => {} });

  await assert.rejects(
    server.client.session("s1", { signal: AbortSignal.timeout(20) }),
    (error) => error instanceof TurnCancelledError,
  );
});

test("a server that is not there is Unavailable, after the tries that are allowed", async () => {
  const client = new Client("127.0.0.1:1", { retry: { maxTries: 2, firstWaitMs: 1 } });

  await assert.rejects(client.session("s1"), (error) => error instanceof UnavailableError && error.isTransportFailure);

  client.close();
});

test("a closed client makes no call", async () => {
  const client = new Client();
  const session = await client.session("s1", { start: "lazy" });
  client.close();

  await assert.rejects(session.get(), /closed/);
  await assert.rejects(session.turn("x").result(), /closed/);
});

test("leaving a session closes it only where it was made so, and hides how that went", async () => {
  let closes = 0;
  await using server = await FakeServer.start({
    closeSession: (_call, answer) => {
      closes += 1;
      answer(refusal(status.NOT_FOUND, [errorInfo("SESSION_NOT_FOUND")]));
    },
  });

  {
    await using _warm = await server.client.session("s1", { start: "lazy" });
  }
  assert.equal(closes, 0);
  {
    await using _closed = await server.client.session("s1", { start: "lazy", closeOnDispose: true });
  }
  assert.equal(closes, 1);
});

test("leaving a watch ends its call", async () => {
  await using server = await FakeServer.start({
    watchSession: (call) => void call.write({ session: Session.create({ state: SessionState.ACTIVE }) }),
  });
  const session = await server.client.session("s1", { start: "lazy" });

  for await (const state of session.watch()) {
    assert.equal(state.state, SessionState.ACTIVE);
    break;
  }

  await server.left;
});
