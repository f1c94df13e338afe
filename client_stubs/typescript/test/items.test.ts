import assert from "node:assert/strict";
import { test } from "node:test";

import * as warmline from "../src/index.js";
import { items, jsonBytes, verbatimMember, withOptions } from "../src/items.js";
import { Item, RequestOptions } from "../src/v1.js";

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const string = (value: Uint8Array | undefined): string | undefined => value && new TextDecoder().decode(value);

function json(item: Item | undefined): string | undefined {
  assert(item?.content?.$case === "json");
  return string(item.content.value);
}

test("a text is a user's message, alone or in a list", () => {
  const expected = { content: { $case: "message", value: { role: "user", text: "hello" } } };

  assert.deepEqual(items("hello"), [expected]);
  assert.deepEqual(items(["hello"]), [expected]);
});

test("bytes are sent as they are", () => {
  const verbatim = bytes('{ "type" : "message" }');

  assert.deepEqual(items(verbatim), [{ content: { $case: "json", value: verbatim } }]);
});

test("an object becomes JSON, also one with content", () => {
  const [item] = items({ role: "user", content: [{ type: "input_text", text: "é" }] });

  assert.equal(json(item), '{"role":"user","content":[{"type":"input_text","text":"é"}]}');
});

test("half of an emoji is escaped, for it has no UTF-8 form", () => {
  assert.equal(string(jsonBytes({ text: "\ud83e" })), '{"text":"\\ud83e"}');
});

test("what JSON cannot hold is refused", () => {
  assert.throws(() => jsonBytes({ value: NaN }), TypeError);
  assert.throws(() => jsonBytes({ value: 1n }), TypeError);
});

test("any iterable of items is a conversation, in its order", () => {
  const roles = items(new Set([warmline.system("a"), warmline.developer("b"), warmline.assistant("c")])).map(
    ({ content }) => (content?.$case === "message" ? content.value.role : undefined),
  );

  assert.deepEqual(roles, ["system", "developer", "assistant"]);
  assert.deepEqual(items([]), []);
});

test("tool outputs name their call", () => {
  assert.deepEqual(warmline.functionOutput("c1", "out").content, {
    $case: "functionCallOutput",
    value: { callId: "c1", output: "out" },
  });
  assert.equal(
    json(warmline.customToolOutput("c1", "out")),
    '{"type":"custom_tool_call_output","call_id":"c1","output":"out"}',
  );
});

test("options are written over what is there", () => {
  const base = RequestOptions.create({ model: "m", reasoning: { effort: "low", summary: "auto" } });

  const made = withOptions(base, {
    instructions: "",
    tools: [{ name: "look" }],
    toolChoice: "auto",
    parallelToolCalls: false,
    reasoningEffort: "high",
    verbosity: "low",
    textFormat: { type: "text" },
    serviceTier: "flex",
    store: false,
    include: [],
    promptCacheKey: "k",
    maxOutputTokens: 5,
    model: undefined,
  });

  assert.deepEqual([made.model, made.instructions, made.parallelToolCalls, made.store], ["m", "", false, false]);
  assert.deepEqual([made.reasoning?.effort, made.reasoning?.summary], ["high", "auto"]);
  assert.deepEqual(made.tools?.toolsJson.map(string), ['{"name":"look"}']);
  assert.deepEqual([string(made.toolChoiceJson), string(made.text?.formatJson)], ['"auto"', '{"type":"text"}']);
  assert.deepEqual([made.text?.verbosity, made.serviceTier, made.include?.values], ["low", "flex", []]);
  assert.deepEqual([made.promptCacheKey, made.maxOutputTokens], ["k", 5]);
  assert.equal(base.instructions, undefined);
  assert.equal(string(withOptions(base, { toolChoice: { type: "none" } }).toolChoiceJson), '{"type":"none"}');
  assert.equal(withOptions(base, { reasoningSummary: "none" }).reasoning?.effort, "low");
});

for (const [payload, expected] of [
  ['{"item":{"a":1}}', '{"a":1}'],
  ['{"type":"x","item": {"a" : [1, {"b":"}"}]} , "z":1}', '{"a" : [1, {"b":"}"}]}'],
  [' {\n"item" :\t"q\\"}\\\\" }', '"q\\"}\\\\"'],
  ['{"item":-1.5e3\n,"b":2}', "-1.5e3"],
  ['{"a":[1,2],"item":true}', "true"],
  ['{"item":null}', "null"],
  ['{"item":[]}', "[]"],
  ['{"it\\u0065m":{}}', "{}"],
  ['{"x":{"item":1},"item":"ü€🧊"}', '"ü€🧊"'],
  ['{"a":"item"}', undefined],
  ["{}", undefined],
  ["[1]", undefined],
  ['{"item":', undefined],
  ["", undefined],
] satisfies [string, string | undefined][]) {
  test(`the member of ${JSON.stringify(payload)} is found verbatim`, () => {
    assert.equal(string(verbatimMember(bytes(payload), "item")), expected);
  });
}
