import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { setImmediate as tick } from "node:timers/promises";

import { status } from "@grpc/grpc-js";

import {
  DeadlineExceededError,
  LaneBusyError,
  ProtocolError,
  SequenceGapError,
  TextVoidedError,
  TurnCancelledError,
  TurnInterruptedError,
  UnavailableError,
} from "../src/index.js";
import {
  ADMITTED,
  COMPLETED,
  errorInfo,
  event,
  FakeServer,
  message,
  refuse,
  retryInfo,
  text,
  type TurnCall,
} from "./fake_server.js";

function say(call: TurnCall, ...pieces: string[]): void {
  call.write(message(1, ADMITTED, ...pieces.map(text), COMPLETED));
  call.end();
}

function sayAndHang(call: TurnCall): void {
  call.write(message(1, ADMITTED, text("one "), text("two ")));
}

test("a turn gives its events, its text and its result, each where the other stopped", async () => {
  await using server = await FakeServer.start({ streamTurn: (call) => say(call, "one ", "two ", "three") });
  await using turn = await server.turn();

  const first = await turn.next();
  const pieces: string[] = [];
  for await (const piece of turn.text()) {
    pieces.push(piece);
  }
  const result = await turn.result();

  assert.equal(first.value?.event?.$case, "admitted");
  assert.deepEqual(pieces, ["one ", "two ", "three"]);
  assert.deepEqual([result.ending, result.text, result.responseId], ["completed", "one two three", "resp_1"]);
  assert.equal(result.historyPosition, 2n);
  assert.deepEqual(await turn.result(), result);
});

for (const [how, leave] of Object.entries({
  "break out of the events": async (turn) => {
    for await (const _ of turn) {
      break;
    }
  },
  "break out of the text": async (turn) => {
    for await (const _ of turn.text()) {
      break;
    }
  },
  "throw out of the text": async (turn) => {
    await assert.rejects(async () => {
      for await (const _ of turn.text()) {
        throw new Error("thrown");
      }
    }, /thrown/);
  },
  close: async (turn) => {
    await turn.next();
    await turn.close();
  },
  "the end of a block": async (turn) => {
    await using left = turn;
    await left.next();
  },
  "close before anything was read": (turn) => turn.close(),
} satisfies Record<string, (turn: Awaited<ReturnType<FakeServer["turn"]>>) => Promise<void>>)) {
  test(`leaving a turn by ${how} stops the call at the server`, async () => {
    let onCall = (): void => {};
    const called = new Promise<void>((resolve) => (onCall = resolve));
    await using server = await FakeServer.start({ streamTurn: (call) => (sayAndHang(call), onCall()) });
    const turn = await server.turn();
    await called;

    await leave(turn);

    await server.left;
    assert.deepEqual(await turn.next(), { done: true, value: undefined });
    await assert.rejects(turn.result(), TurnCancelledError);
  });
}

test("a signal cancels the call: the pending read fails with its reason, and what came stays", async () => {
  await using server = await FakeServer.start({ streamTurn: sayAndHang });
  const controller = new AbortController();
  const turn = await server.turn({ signal: controller.signal });
  const reason = new Error("the user left");
  for (let events = 0; events < 3; events += 1) {
    await turn.next();
  }

  const pending = turn.next();
  controller.abort(reason);

  await assert.rejects(
    pending,
    (error) => error instanceof TurnCancelledError && error.cause === reason && error.turnId === "turn-1",
  );
  await assert.rejects(turn.result(), TurnCancelledError);
  assert.equal(turn.snapshot().text, "one two ");
  await server.left;
});

test("a signal that was aborted before sends nothing", async () => {
  await using server = await FakeServer.start({ streamTurn: sayAndHang });

  await assert.rejects((await server.turn({ signal: AbortSignal.abort() })).result(), TurnCancelledError);

  assert.equal(server.sends, 0);
});

test("a turn that has ended no longer listens to the signal", async () => {
  await using server = await FakeServer.start({ streamTurn: (call) => say(call, "done") });
  const { signal } = new AbortController();

  await (await server.turn({ signal })).result();

  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("closing the client cancels its turns", async () => {
  await using server = await FakeServer.start({ streamTurn: sayAndHang });
  const turn = await server.turn();
  await turn.next();

  server.client.close();

  await assert.rejects(turn.result(), TurnCancelledError);
  await server.left;
});

test("a turn that nobody reads ends no process when it fails", async () => {
  await using server = await FakeServer.start(
    {},
    {
      token: () => {
        throw new Error("no token");
      },
    },
  );

  const turn = await server.turn();
  await tick();

  await assert.rejects(turn.result(), /no token/);
});

test("reads at the same time get one event each, in order", async () => {
  await using server = await FakeServer.start({ streamTurn: (call) => say(call, "one ", "two ") });
  const turn = await server.turn();

  const steps = await Promise.all([turn.next(), turn.next(), turn.next(), turn.next(), turn.next()]);

  assert.deepEqual(
    steps.map((step) => step.value?.sequence),
    [1n, 2n, 3n, 4n, undefined],
  );
});

test("every message that came before a failing status is delivered, also to a reader who pauses", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      call.write(message(1, ADMITTED));
      for (let sequence = 2; sequence <= 100; sequence += 1) {
        call.write(message(sequence, text(`${sequence} `)));
      }
      refuse(call, status.ABORTED, errorInfo("UPSTREAM_STREAM_LOST", { response_id: "resp_9" }));
    },
  });
  const turn = await server.turn();
  let events = 0;

  await assert.rejects(
    async () => {
      for await (const _ of turn) {
        events += 1;
        if (events === 1) {
          await new Promise((resolve) => setTimeout(resolve, 30));
        }
      }
    },
    (error) =>
      error instanceof TurnInterruptedError && error.reason === "UPSTREAM_STREAM_LOST" && error.responseId === "resp_9",
  );

  assert.equal(events, 100);
});

test("once completed was delivered the call has succeeded, whatever the status says", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      call.write(message(1, ADMITTED, text("done"), COMPLETED));
      refuse(call, status.ABORTED, errorInfo("UPSTREAM_FAILED"));
    },
  });

  assert.equal((await (await server.turn()).result()).text, "done");
});

test("a server that does not end the stream after the last event is left", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => void call.write(message(1, ADMITTED, COMPLETED)),
  });

  assert.equal((await (await server.turn()).result()).ending, "completed");

  await server.left;
});

test("an error is the same however often it is read", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => refuse(call, status.ABORTED, errorInfo("LANE_BUSY")),
  });
  const turn = await server.turn();

  const errors = await Promise.all(
    [turn.result(), turn.next(), turn.result()].map((read) => read.catch((error: unknown) => error)),
  );

  assert(errors[0] instanceof LaneBusyError);
  assert.equal(errors[1], errors[0]);
  assert.equal(errors[2], errors[0]);
  assert.equal(server.sends, 1);
});

test("the end of the stream without a last event is a fault of the server", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      call.write(message(1, ADMITTED));
      call.end();
    },
  });

  await assert.rejects(
    (await server.turn()).result(),
    (error) => error instanceof ProtocolError && error.turnId === "turn-1" && error.code === undefined,
  );
});

test("a gap in the sequence fails the turn and stops the call", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => void call.write({ events: [event(1, ADMITTED), event(3, text("x"))] }),
  });

  await assert.rejects((await server.turn()).result(), SequenceGapError);

  await server.left;
});

test("members of a newer server are counted and skipped", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      call.write({ events: [event(1, ADMITTED), event(2, undefined), event(3, COMPLETED)] });
      call.end();
    },
  });
  const turn = await server.turn();
  const kinds: (string | undefined)[] = [];

  for await (const { event: member } of turn) {
    kinds.push(member?.$case);
  }

  assert.deepEqual(kinds, ["admitted", "completed"]);
  assert.equal(turn.unknownEvents, 1);
});

test("a refusal that says when is sent again, with the same request id", async () => {
  const seen: string[] = [];
  await using server = await FakeServer.start(
    {
      streamTurn: (call, sends) => {
        seen.push(call.request.requestId);
        if (sends < 3) {
          refuse(call, status.UNAVAILABLE, errorInfo("SERVER_DRAINING"), retryInfo(1));
        } else {
          say(call, "served");
        }
      },
    },
    { retry: { firstWaitMs: 1 } },
  );

  assert.equal((await (await server.turn()).result()).text, "served");

  assert.equal(new Set(seen).size, 1);
  assert.equal(seen.length, 3);
});

test("nothing is sent again once an event was delivered", async () => {
  await using server = await FakeServer.start(
    {
      streamTurn: (call) => {
        call.write(message(1, ADMITTED));
        refuse(call, status.UNAVAILABLE);
      },
    },
    { retry: { firstWaitMs: 1 } },
  );

  await assert.rejects((await server.turn()).result(), UnavailableError);

  assert.equal(server.sends, 1);
});

test("resends are bounded", async () => {
  await using server = await FakeServer.start(
    { streamTurn: (call) => refuse(call, status.UNAVAILABLE) },
    { retry: { firstWaitMs: 1, maxTries: 3 } },
  );

  await assert.rejects(
    (await server.turn()).result(),
    (error) => error instanceof UnavailableError && error.isTransportFailure,
  );

  assert.equal(server.sends, 3);
});

test("a signal ends the wait before a resend", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => refuse(call, status.UNAVAILABLE, errorInfo("SERVER_DRAINING"), retryInfo(20_000)),
  });
  const turn = await server.turn({ signal: AbortSignal.timeout(50) });

  await assert.rejects(
    turn.result(),
    (error) => error instanceof TurnCancelledError && (error.cause as Error).name === "TimeoutError",
  );

  assert.equal(server.sends, 1);
});

test("a deadline ends the call", async () => {
  await using server = await FakeServer.start({ streamTurn: sayAndHang });

  await assert.rejects(
    (await server.turn({ timeoutMs: 50 })).result(),
    (error) => error instanceof DeadlineExceededError && error.turnId === "turn-1",
  );

  await server.left;
});

test("text that a resend voids is told, and the turn goes on", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      const restarted = { $case: "restarted" as const, value: { attempt: 2, keptItemSequences: [] } };
      call.write({
        events: [
          event(1, ADMITTED),
          event(2, text("void")),
          event(3, restarted, { attempt: 2 }),
          event(4, text("valid"), { attempt: 2 }),
          event(5, COMPLETED, { attempt: 2 }),
        ],
      });
      call.end();
    },
  });
  const turn = await server.turn({ retry: "reference" });
  const pieces: string[] = [];

  await assert.rejects(async () => {
    for await (const piece of turn.text()) {
      pieces.push(piece);
    }
  }, TextVoidedError);

  assert.deepEqual(pieces, ["void"]);
  assert.equal((await turn.result()).text, "valid");
});

test("a restart that voids no text lets the text go on", async () => {
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      const restarted = { $case: "restarted" as const, value: { attempt: 2, keptItemSequences: [] } };
      call.write({
        events: [
          event(1, ADMITTED),
          event(2, restarted, { attempt: 2 }),
          event(3, text("valid"), { attempt: 2 }),
          event(4, COMPLETED, { attempt: 2 }),
        ],
      });
      call.end();
    },
  });
  const turn = await server.turn({ retry: "reference" });
  const pieces: string[] = [];

  for await (const piece of turn.text()) {
    pieces.push(piece);
  }

  assert.deepEqual(pieces, ["valid"]);
});

test("gRPC's own resends are off, also where a service config wants them", async () => {
  const retryPolicy = {
    maxAttempts: 3,
    initialBackoff: "0.01s",
    maxBackoff: "0.01s",
    backoffMultiplier: 1,
    retryableStatusCodes: ["ABORTED"],
  };
  const config = {
    loadBalancingConfig: [],
    methodConfig: [{ name: [{ service: "warmline.v1.TurnService" }], retryPolicy }],
  };
  await using server = await FakeServer.start(
    { streamTurn: (call) => refuse(call, status.ABORTED, errorInfo("LANE_BUSY")) },
    { channelOptions: { "grpc.service_config": JSON.stringify(config) } },
  );

  await assert.rejects((await server.turn()).result(), LaneBusyError);

  assert.equal(server.sends, 1);
});
