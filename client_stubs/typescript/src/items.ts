/** Items of a conversation and options of a request, from what callers have at hand. Pure. */

import { Item, RequestOptions } from "./gen/warmline/v1/types.js";

/** One JSON object: a plain object, or its UTF-8 bytes, which are sent as they are. */
export type Json = Readonly<Record<string, unknown>> | Uint8Array;

/** An item: a message of the contract, one JSON object, or a user's text. */
export type ItemLike = Item | Json | string;

/** Fields of the request body, as the contract's `RequestOptions` explains them; one left out says nothing. */
export interface Options {
  model?: string | undefined;
  instructions?: string | undefined;
  tools?: readonly Json[] | undefined;
  /** A word such as "auto", or an object. */
  toolChoice?: string | Json | undefined;
  parallelToolCalls?: boolean | undefined;
  reasoningEffort?: string | undefined;
  reasoningSummary?: string | undefined;
  verbosity?: string | undefined;
  textFormat?: Json | undefined;
  serviceTier?: string | undefined;
  store?: boolean | undefined;
  include?: readonly string[] | undefined;
  promptCacheKey?: string | undefined;
  maxOutputTokens?: number | undefined;
}

/** A user's message of one text. */
export function user(text: string): Item {
  return message("user", text);
}

/** A developer's message of one text. */
export function developer(text: string): Item {
  return message("developer", text);
}

/** A system message of one text. */
export function system(text: string): Item {
  return message("system", text);
}

/** An answer of the model, as one text. */
export function assistant(text: string): Item {
  return message("assistant", text);
}

/** The output of a function call; `callId` is the call's. */
export function functionOutput(callId: string, output: string): Item {
  return { content: { $case: "functionCallOutput", value: { callId, output } } };
}

/** The output of a custom tool's call; `callId` is the call's. */
export function customToolOutput(callId: string, output: string): Item {
  return item({ type: "custom_tool_call_output", call_id: callId, output });
}

/** Makes an item; bytes are sent as they are, a text is a user's message. */
export function item(value: ItemLike): Item {
  if (typeof value === "string") {
    return user(value);
  }
  return isItem(value) ? value : { content: { $case: "json", value: jsonBytes(value) } };
}

/** Makes the items of a conversation; a single one may stand for itself. */
export function items(values: ItemLike | Iterable<ItemLike>): Item[] {
  const isOne = typeof values === "string" || values instanceof Uint8Array || !(Symbol.iterator in values);
  return isOne ? [item(values as ItemLike)] : Array.from(values as Iterable<ItemLike>, item);
}

/**
 * One JSON object as bytes; bytes are returned as they are.
 *
 * @throws TypeError the object has a value that JSON cannot hold.
 */
export function jsonBytes(value: Json): Uint8Array {
  return value instanceof Uint8Array ? value : dump(value);
}

/**
 * `base` with options written over it; those that are left out stay as they are.
 *
 * @throws TypeError a name that is no option.
 */
export function withOptions(base: RequestOptions, options: Options): RequestOptions {
  const made = { ...base };
  for (const [name, value] of Object.entries(options)) {
    const write = WRITERS.get(name);
    if (write === undefined) {
      throw new TypeError(`set request options: unknown ${name}; known are ${[...WRITERS.keys()].join(", ")}`);
    }
    if (value !== undefined) {
      write(made, value as never);
    }
  }
  return made;
}

/**
 * The value of an object's member, byte for byte as it stands; undefined when there is none.
 *
 * @param payload one JSON object in UTF-8.
 */
export function verbatimMember(payload: Uint8Array, name: string): Uint8Array | undefined {
  if (parseObject(payload)[name] === undefined) {
    return undefined;
  }
  // A JSON object for certain: structure is ASCII, and what is not stands in strings.
  let at = nextToken(payload, nextToken(payload, 0) + 1);
  let found: Uint8Array | undefined;
  while (payload[at] !== CLOSE_BRACE) {
    const keyEnd = endOfValue(payload, at);
    const key: unknown = JSON.parse(decode(payload.subarray(at, keyEnd)));
    const start = nextToken(payload, nextToken(payload, keyEnd) + 1);
    const end = endOfValue(payload, start);
    if (key === name) {
      found = payload.subarray(start, end);
    }
    at = nextToken(payload, end);
    if (payload[at] === COMMA) {
      at = nextToken(payload, at + 1);
    }
  }
  return found;
}

/** A JSON object; empty for anything else, because a result must not fail on an item that it cannot read. */
export function parseObject(json: Uint8Array): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(decode(json));
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : {};
  } catch {
    return {};
  }
}

const WRITERS: ReadonlyMap<string, (made: RequestOptions, value: never) => void> = new Map(
  Object.entries({
    model: (made, value) => void (made.model = value),
    instructions: (made, value) => void (made.instructions = value),
    tools: (made, value) => void (made.tools = { toolsJson: value.map(jsonBytes) }),
    toolChoice: (made, value) =>
      void (made.toolChoiceJson = typeof value === "string" ? dump(value) : jsonBytes(value)),
    parallelToolCalls: (made, value) => void (made.parallelToolCalls = value),
    reasoningEffort: (made, value) => void (made.reasoning = { ...made.reasoning, effort: value }),
    reasoningSummary: (made, value) => void (made.reasoning = { ...made.reasoning, summary: value }),
    verbosity: (made, value) => void (made.text = { ...made.text, verbosity: value }),
    textFormat: (made, value) => void (made.text = { ...made.text, formatJson: jsonBytes(value) }),
    serviceTier: (made, value) => void (made.serviceTier = value),
    store: (made, value) => void (made.store = value),
    include: (made, value) => void (made.include = { values: [...value] }),
    promptCacheKey: (made, value) => void (made.promptCacheKey = value),
    maxOutputTokens: (made, value) => void (made.maxOutputTokens = value),
  } satisfies { [Name in keyof Options]-?: (made: RequestOptions, value: NonNullable<Options[Name]>) => void }),
);

const [QUOTE, COMMA, BACKSLASH, CLOSE_BRACE] = [0x22, 0x2c, 0x5c, 0x7d];
const [OPEN_BRACKET, CLOSE_BRACKET, OPEN_BRACE] = [0x5b, 0x5d, 0x7b];

function message(role: string, text: string): Item {
  return { content: { $case: "message", value: { role, text } } };
}

function isItem(value: Item | Json): value is Item {
  const content: unknown = "content" in value ? value.content : undefined;
  return typeof content === "object" && content !== null && "$case" in content;
}

function dump(value: unknown): Uint8Array {
  const text = JSON.stringify(value, (_key, member: unknown) => {
    if (typeof member === "number" && !Number.isFinite(member)) {
      throw new TypeError(`make JSON: found ${member}, which JSON cannot hold`);
    }
    return member;
  });
  return new TextEncoder().encode(text);
}

function decode(json: Uint8Array): string {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(json);
}

function nextToken(json: Uint8Array, from: number): number {
  let at = from;
  while (json[at] === 0x20 || json[at] === 0x09 || json[at] === 0x0a || json[at] === 0x0d) {
    at += 1;
  }
  return at;
}

/** Where the value that starts at `from` ends. */
function endOfValue(json: Uint8Array, from: number): number {
  let depth = 0;
  for (let at = from; at < json.length; at += 1) {
    const byte = json[at];
    if (byte === QUOTE) {
      at = endOfString(json, at);
      if (depth === 0) {
        return at + 1;
      }
    } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
      depth += 1;
    } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
      depth -= 1;
      if (depth <= 0) {
        // Below zero: a number or a word ended with the object around it.
        return depth === 0 ? at + 1 : trimmed(json, at);
      }
    } else if (byte === COMMA && depth === 0) {
      return trimmed(json, at);
    }
  }
  return json.length;
}

/** Where the closing quote of the string that starts at `from` is. */
function endOfString(json: Uint8Array, from: number): number {
  let at = from + 1;
  while (json[at] !== QUOTE) {
    at += json[at] === BACKSLASH ? 2 : 1;
  }
  return at;
}

function trimmed(json: Uint8Array, end: number): number {
  let at = end;
  while (json[at - 1]! <= 0x20) {
    at -= 1;
  }
  return at;
}
