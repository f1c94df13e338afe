import assert from "node:assert/strict";
import { test } from "node:test";

import { SequenceGapError } from "../src/index.js";
import { textDelta, TurnProgress } from "../src/progress.js";
import { AttemptStarted, SlotOutcome, StreamTurnResponse, Transport, TurnEvent } from "../src/v1.js";
import { ADMITTED, COMPLETED, event, text } from "./fake_server.js";

type Member = NonNullable<TurnEvent["event"]>;

const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);

function done(item: string): Member {
  return {
    $case: "itemDone",
    value: { item: { content: { $case: "json", value: bytes(item) } }, outputIndex: undefined },
  };
}

function raw(type: string, payload: string): Partial<TurnEvent> & { event: Member } {
  return { event: { $case: "raw", value: {} }, upstreamType: type, payloadJson: bytes(payload) };
}

function restarted(keptItemSequences: bigint[]): Member {
  return { $case: "restarted", value: { attempt: 2, keptItemSequences } };
}

function folded(...events: (Member | (Partial<TurnEvent> & { event: Member }) | [number, Member])[]): TurnProgress {
  const progress = new TurnProgress("", "r");
  events.forEach((one, index) => {
    const [attempt, member] = Array.isArray(one) ? one : [1, one];
    const made = "$case" in member ? event(index + 1, member, { attempt }) : event(index + 1, member.event, member);
    assert.equal(progress.accept(made), true);
  });
  return progress;
}

const MESSAGE = '{"type":"message","id":"msg_1","content":[{"type":"output_text","text":"Hello."},{"type":"refusal"}]}';
const CALL = '{"type":"function_call","call_id":"c1","name":"look","arguments":"{ }"}';

test("a turn that has not begun is unfinished and empty", () => {
  const result = new TurnProgress("t", "r").snapshot();

  assert.deepEqual([result.ending, result.text, result.items, result.attempts], ["unfinished", "", [], 0]);
  assert.deepEqual([result.turnId, result.requestId, result.historyPosition], ["t", "r", undefined]);
});

test("finished items count, and what was streamed of an unfinished message", () => {
  const result = folded(ADMITTED, text("Hel"), text("lo."), done(MESSAGE), done(CALL), text("And")).snapshot();

  assert.equal(result.text, "Hello.And");
  assert.deepEqual(
    result.items.map((item) => Buffer.from(item).toString()),
    [MESSAGE, CALL],
  );
  assert.deepEqual({ ...result.functionCalls[0] }, { callId: "c1", name: "look", arguments: "{ }" });
});

test("a call is answered by an item that names it", () => {
  const custom = '{"type":"custom_tool_call","call_id":"c2","name":"sh","input":"ls"}';
  const { functionCalls, customToolCalls } = folded(done(CALL), done(custom)).snapshot();

  assert.deepEqual(functionCalls[0]?.answer("out").content, {
    $case: "functionCallOutput",
    value: { callId: "c1", output: "out" },
  });
  assert.equal(customToolCalls[0]?.input, "ls");
  assert.equal(customToolCalls[0]?.answer("out").content?.$case, "json");
});

test("an item that cannot be read is kept and has no text", () => {
  const result = folded(done("[1]"), done("{"), done('{"type":"message","content":[null,7]}')).snapshot();

  assert.deepEqual([result.items.length, result.text], [3, ""]);
});

test("a restart voids what it does not keep, and tells that text was voided", () => {
  const progress = folded(ADMITTED, done(CALL), done(MESSAGE), text("lost"), [2, restarted([2n])], [2, text("new")]);

  assert.deepEqual([progress.snapshot().items.length, progress.snapshot().text], [1, "new"]);
  assert.equal(progress.hasVoidedText, true);
});

test("a restart voids nothing of the attempt that it announces", () => {
  assert.equal(folded(ADMITTED, [2, done(CALL)], [2, restarted([])]).snapshot().items.length, 1);
});

test("text whose item was not told belongs to the next message", () => {
  const untold: Member = { $case: "textDelta", value: { delta: "Hello.", itemId: "", contentIndex: 0 } };

  assert.equal(folded(untold, done(CALL)).snapshot().text, "Hello.");
  assert.equal(folded(untold, done(CALL), done(MESSAGE)).snapshot().text, "Hello.");
});

test("a restart that keeps all text voids none", () => {
  assert.equal(folded(ADMITTED, done(MESSAGE), [2, restarted([2n])]).hasVoidedText, false);
  assert.equal(folded(ADMITTED, done(CALL), [2, restarted([])]).hasVoidedText, false);
});

for (const sequence of [1, 3, 0]) {
  test(`event ${sequence} after the first is a gap, and changes nothing`, () => {
    const progress = folded(ADMITTED);

    assert.throws(() => progress.accept(event(sequence, text("x"))), SequenceGapError);

    assert.deepEqual([progress.sequence, progress.snapshot().text], [1n, ""]);
  });
}

test("a member that is not known is counted and skipped, not its sequence", () => {
  const progress = folded(ADMITTED);

  assert.equal(progress.accept(event(2, undefined)), false);
  assert.equal(progress.accept(event(3, text("x"))), true);

  assert.equal(progress.snapshot().unknownEvents, 1);
});

test("an attempt's facts have names, numbers where no name is known, and are the newest attempt's", () => {
  const started = (value: Partial<AttemptStarted>): Member => ({
    $case: "attemptStarted",
    value: { ...AttemptStarted.create(), ...value },
  });
  const { transport, slotOutcome, fullReason, attempts, unknownValues } = folded(
    started({ transport: Transport.WEBSOCKET, slotOutcome: SlotOutcome.COLD }),
    [2, started({ transport: Transport.HTTP, slotOutcome: 77 as SlotOutcome })],
  ).snapshot();

  assert.deepEqual([transport, slotOutcome, fullReason, attempts, unknownValues], ["HTTP", "77", "", 2, 1]);
});

test("ids are the newest attempt's", () => {
  const retrying: Member = {
    $case: "retrying",
    value: {
      reason: "UPSTREAM_FAILED",
      retry: 1,
      maxRetries: 4,
      delay: undefined,
      responseId: "resp_0",
      upstreamRequestId: "req_0",
      upstreamStatus: 500,
    },
  };
  const progress = folded(ADMITTED, { $case: "created", value: { responseId: "resp_0" } }, retrying);
  assert.deepEqual([progress.facts().responseId, progress.facts().upstreamRequestId], ["resp_0", "req_0"]);

  progress.accept(event(4, { $case: "attemptStarted", value: AttemptStarted.create() }, { attempt: 2 }));

  assert.deepEqual(
    [progress.facts().responseId, progress.facts().upstreamRequestId, progress.facts().attempts],
    ["", undefined, 2],
  );
});

test("raw events make the same result", () => {
  const rawText = raw("response.output_text.delta", '{"item_id":"msg_2","delta":"And"}');
  const progress = folded(
    ADMITTED,
    raw("response.created", '{"response":{"id":"resp_7"}}'),
    raw("response.output_item.done", `{"item": ${MESSAGE} ,"output_index":0}`),
    rawText,
    raw("response.other", "{}"),
  );

  const result = progress.snapshot();

  assert.deepEqual([result.responseId, result.text, result.items.length], ["resp_7", "Hello.And", 1]);
  assert.equal(Buffer.from(result.items[0] ?? []).toString(), MESSAGE);
  assert.equal(textDelta(event(1, rawText.event, rawText)), "And");
});

test("an incomplete turn says why", () => {
  const { ending, incompleteReason, endTurn } = folded({
    $case: "incomplete",
    value: {
      responseId: "",
      upstreamRequestId: undefined,
      reason: "max_output_tokens",
      usage: undefined,
      historyPosition: 1n,
    },
  }).snapshot();

  assert.deepEqual([ending, incompleteReason, endTurn], ["incomplete", "max_output_tokens", undefined]);
});

test("nothing is lost on the wire: large numbers, all bytes, a byte order mark, members of a newer server", () => {
  const largest = 2n ** 64n - 1n;
  const allBytes = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const completed = { ...COMPLETED.value, historyPosition: largest } as Extract<
    Member,
    { $case: "completed" }
  >["value"];
  const later = TurnEvent.decode(Uint8Array.from([0x08, 0x03, 0xd2, 0x05, 0x01, 0x07]));

  const sent = {
    events: [
      event(1, text("\ufeffx"), { payloadJson: allBytes }),
      event(2, { $case: "completed", value: completed }),
      later,
    ],
  };
  const [first, second, third] = StreamTurnResponse.decode(StreamTurnResponse.encode(sent).finish()).events;

  assert.deepEqual(first?.payloadJson, allBytes);
  assert.equal(first && textDelta(first), "\ufeffx");
  assert(second?.event?.$case === "completed");
  assert.equal(second.event.value.historyPosition, largest);
  assert.equal(third?.event, undefined);
  assert.deepEqual(TurnEvent.encode(third ?? later).finish(), Uint8Array.from([0x08, 0x03, 0xd2, 0x05, 0x01, 0x07]));
});
