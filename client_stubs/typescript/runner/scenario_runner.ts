/** Plays one scenario through the TypeScript client: see client_stubs/scenarios/README.md. */

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { isDeepStrictEqual, parseArgs } from "node:util";

import * as warmline from "../src/index.js";
import { SlotState, WarmUpMode, type Item } from "../src/v1.js";

type Json = Record<string, unknown>;

/** A step did not go as expected. */
class StepError extends Error {}

/** A turn that was sent, and what its caller was given. */
class Played {
  readonly events: Record<string, number> = {};
  payloads = 0;

  constructor(
    readonly turn: warmline.Turn,
    readonly sent: readonly Item[],
  ) {}

  /** Reads to the n-th event of that name, or to the end. */
  async read(event = "", count = 1): Promise<void> {
    let wanted = count;
    for (let step = await this.turn.next(); !step.done; step = await this.turn.next()) {
      const kind = snake(String(step.value.event?.$case));
      this.events[kind] = (this.events[kind] ?? 0) + 1;
      this.payloads += step.value.payloadJson === undefined ? 0 : 1;
      if (kind === event && (wanted -= 1) === 0) {
        return;
      }
    }
    if (event) {
      throw new StepError(`the turn ended before ${event}; there were ${JSON.stringify(this.events)}`);
    }
  }
}

/** Plays the steps of a scenario. */
class Runner {
  readonly turns = new Map<string, Played>();
  readonly #sessions = new Map<string, warmline.Session>();

  constructor(
    readonly client: warmline.Client,
    readonly control: string,
  ) {}

  /** Plays the steps; returns what went wrong in the first that did, null if none did. */
  async play(steps: readonly Json[]): Promise<string | null> {
    for (const [index, step] of steps.entries()) {
      const [[verb = "", fields] = []] = Object.entries(step);
      try {
        const play = this.#verbs[verb] ?? fail(`unknown verb ${verb}`);
        await play(typeof fields === "string" ? { path: fields } : { ...(fields as Json) });
      } catch (error) {
        return `step ${index + 1} ${verb}: ${error instanceof Error ? error.message : String(error)}`;
      }
    }
    return null;
  }

  /** Leaves every turn that is still open. */
  async close(): Promise<void> {
    for (const { turn } of this.turns.values()) {
      await turn.close();
    }
  }

  /** The result objects of all turns. */
  results(): Json {
    return Object.fromEntries([...this.turns].map(([name, played]) => [name, resultObject(played)]));
  }

  readonly #verbs: Record<string, (fields: Json) => Promise<void>> = {
    session: async ({ id, error, ...fields }) => {
      const { warm_up, http_only, stream_max_retries, max_lanes, close_on_exit, ...options } = fields;
      const config = {
        ...(warm_up !== undefined && { warmUp: WarmUpMode[upper(warm_up) as keyof typeof WarmUpMode] }),
        ...(http_only !== undefined && { fallbackPolicy: { httpOnly: Boolean(http_only) } }),
        ...(stream_max_retries !== undefined && { retryPolicy: { streamMaxRetries: Number(stream_max_retries) } }),
        ...(max_lanes !== undefined && { limits: { maxLanes: Number(max_lanes) } }),
      };
      const session = await this.#expecting(
        this.client.session(String(id), {
          ...(fields.start !== "attach" && { config }),
          closeOnDispose: Boolean(close_on_exit),
          ...camelKeys(options),
        }),
        error,
      );
      if (session !== undefined) {
        this.#sessions.set(String(id), session);
      }
    },
    turn: async ({ as, session, input, append_at, max_duration_s, timeout_s, ...options }) => {
      const sent = (input as unknown[]).flatMap((item) => this.#items(item));
      const turn = this.#session(session).turn(sent, {
        appendAt: this.#position(append_at),
        maxDurationMs: milliseconds(max_duration_s),
        timeoutMs: milliseconds(timeout_s),
        ...camelKeys(options),
      });
      this.turns.set(String(as), new Played(turn, sent));
    },
    read_until: async ({ turn, event, count = 1, ...none }) => {
      refuse(none);
      await this.#played(turn).read(String(event), Number(count));
    },
    expect_result: async ({ turn, ...expected }) => {
      const played = this.#played(turn);
      await played.read();
      compare(resultObject(played), expected);
    },
    expect_error: async ({ turn, snapshot = {}, ...expected }) => {
      const played = this.#played(turn);
      await this.#expecting(played.read(), expected);
      compare(resultObject(played), snapshot);
    },
    cancel: async ({ turn, ...none }) => {
      refuse(none);
      await this.#post("/mark/cancel");
      await this.#played(turn).turn.close();
    },
    cancel_turn: async ({ session, expect, error, ...ids }) => {
      const call = this.#session(session).cancelTurn(camelKeys(ids));
      const found = await this.#expecting(call, error);
      if (expect !== undefined) {
        compare(found, expect);
      }
    },
    preconnect: async ({ session, expect, error, ...none }) => {
      refuse(none);
      const slot = await this.#expecting(this.#session(session).preconnect({ wait: true }), error);
      if (expect !== undefined) {
        compare(slot && SlotState[slot.state], expect);
      }
    },
    close: async ({ session, error, ...none }) => {
      refuse(none);
      await this.#expecting(this.#session(session).close(), error);
    },
    control: async ({ path, expect = {}, ...none }) => {
      refuse(none);
      compare(await this.#post(String(path)), expect);
    },
  };

  #session(id: unknown): warmline.Session {
    return this.#sessions.get(String(id)) ?? fail(`unknown session ${id}`);
  }

  #played(name: unknown): Played {
    return this.turns.get(String(name)) ?? fail(`unknown turn ${name}`);
  }

  #position(appendAt: unknown): number | bigint | undefined {
    if (typeof appendAt === "object" && appendAt !== null && "position_of" in appendAt) {
      return this.#played(appendAt.position_of).turn.snapshot().historyPosition;
    }
    return appendAt as number | undefined;
  }

  #items(item: unknown): Item[] {
    if (typeof item === "string") {
      return [warmline.user(item)];
    }
    const [[kind = "", value] = []] = Object.entries(item as Json);
    switch (kind) {
      case "developer":
        return [warmline.developer(String(value))];
      case "function_output": {
        const { call_id, output } = value as Json;
        return [warmline.functionOutput(String(call_id), String(output))];
      }
      case "json":
        return [verbatim(new TextEncoder().encode(String(value)))];
      case "conversation_of": {
        const { sent, turn } = this.#played(value);
        return [...sent, ...turn.snapshot().items.map(verbatim)];
      }
      default:
        return fail(`unknown item ${JSON.stringify(item)}`);
    }
  }

  async #post(path: string): Promise<unknown> {
    const response = await fetch(this.control + path, { method: "POST" });
    if (response.status !== 200) {
      fail(`POST ${path}: found status ${response.status}: ${await response.text()}`);
    }
    return response.json();
  }

  /** Waits for a call that shall succeed, or with `expected` fail like that. */
  async #expecting<Result>(call: Promise<Result>, expected: unknown): Promise<Result | undefined> {
    if (expected === undefined) {
      return call;
    }
    try {
      await call;
    } catch (error) {
      if (!(error instanceof warmline.WarmlineError)) {
        throw error;
      }
      compare(errorObject(error), expected);
      return undefined;
    }
    return fail(`the call succeeded, expected ${JSON.stringify(expected)}`);
  }
}

/** A turn's outcome so far as the result object. */
function resultObject({ turn, events, payloads }: Played): Json {
  const { items, functionCalls, customToolCalls, usage, ...result } = turn.snapshot();
  return {
    ...snakeKeys(result),
    text_bytes: Buffer.byteLength(result.text),
    items: items.map((item) => new TextDecoder().decode(item)),
    function_calls: functionCalls.map(snakeKeys),
    custom_tool_calls: customToolCalls.map(snakeKeys),
    usage: usage === undefined ? null : snakeKeys(usage),
    events,
    payloads,
  };
}

/** An error as the error object. */
function errorObject(error: warmline.WarmlineError): Json {
  const { turnId, requestId, responseId, upstreamRequestId, attempts, retryAfterMs, upstream } = error;
  return {
    kind: error.name.replace(/Error$/, ""),
    code: error.code ?? null,
    reason: error.reason,
    ...snakeKeys({ turnId, requestId, responseId, upstreamRequestId, attempts }),
    retry_after_s: retryAfterMs === undefined ? null : retryAfterMs / 1000,
    fields: error.fieldViolations.map(({ field }) => field),
    quotas: error.quotaViolations.map(({ subject }) => subject),
    upstream: upstream === undefined ? null : snakeKeys(upstream),
  };
}

/** Throws where `found` is not as expected. */
function compare(found: unknown, expected: unknown, path = ""): void {
  const isObject = (value: unknown): value is Json =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  let isAsExpected = isDeepStrictEqual(found ?? null, expected);
  if (isObject(expected) && Array.isArray(expected.$any)) {
    isAsExpected = expected.$any.some((value) => isDeepStrictEqual(found ?? null, value));
  } else if (isObject(expected) && "$present" in expected) {
    isAsExpected = (found !== undefined && found !== null && found !== "" && found !== 0) === expected.$present;
  } else if (isObject(expected) && isObject(found)) {
    for (const [name, value] of Object.entries(expected)) {
      compare(found[name], value, path ? `${path}.${name}` : name);
    }
    return;
  } else if (Array.isArray(expected) && Array.isArray(found) && found.length === expected.length) {
    expected.forEach((value, index) => compare(found[index], value, `${path}[${index}]`));
    return;
  }
  if (!isAsExpected) {
    fail(`${path}: found ${JSON.stringify(found)}, expected ${JSON.stringify(expected)}`);
  }
}

/** An object's members with the contract's names and as JSON has them: no bigint, null for undefined. */
function snakeKeys(value: object): Json {
  const members = Object.entries(value).filter(([name]) => name !== "_unknownFields");
  return Object.fromEntries(
    members.map(([name, member]) => [snake(name), typeof member === "bigint" ? Number(member) : (member ?? null)]),
  );
}

function camelKeys(value: Json): Json {
  return Object.fromEntries(
    Object.entries(value).map(([name, member]) => [name.replace(/_(.)/g, (_, letter) => letter.toUpperCase()), member]),
  );
}

function snake(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

function upper(value: unknown): string {
  return String(value).toUpperCase();
}

function milliseconds(seconds: unknown): number | undefined {
  return seconds === undefined ? undefined : Number(seconds) * 1000;
}

function verbatim(json: Uint8Array): Item {
  return { content: { $case: "json", value: json } };
}

function refuse(fields: Json): void {
  const names = Object.keys(fields);
  if (names.length > 0) {
    fail(`unknown ${names.join(", ")}`);
  }
}

function fail(text: string): never {
  throw new StepError(text);
}

/** The client that a scenario wants. */
function openClient(address: string, { max_tries, token, tls, ...options }: Json): warmline.Client {
  const { max_message_bytes, keepalive_s, keepalive_timeout_s, ...none } = options;
  refuse(none);
  const { ca, cert, key, server_name } = (typeof tls === "object" ? tls : {}) as Record<string, string | undefined>;
  const files = { rootCertificates: ca, certificateChain: cert, privateKey: key, serverName: server_name };
  return new warmline.Client(address, {
    ...(max_tries !== undefined && { retry: { maxTries: Number(max_tries) } }),
    token: token as string | undefined,
    tls: typeof tls === "object" ? warmline.readTls(files) : Boolean(tls),
    maxMessageBytes: max_message_bytes as number | undefined,
    keepaliveMs: milliseconds(keepalive_s),
    keepaliveTimeoutMs: milliseconds(keepalive_timeout_s),
  });
}

const { values } = parseArgs({
  options: { address: { type: "string" }, scenario: { type: "string" }, control: { type: "string" } },
});
const scenario = JSON.parse(readFileSync(values.scenario ?? "", "utf8"));
const client = openClient(values.address ?? "", scenario.client);
const runner = new Runner(client, values.control ?? "");
const failure = await runner.play(scenario.steps);
const turns = runner.results();
await runner.close();
client.close();
const versionOf = (name: string): string => createRequire(import.meta.url)(`${name}/package.json`).version;
const language = `TypeScript ${versionOf("typescript")}, Node ${process.versions.node}, grpc-js ${versionOf("@grpc/grpc-js")}`;
console.log(JSON.stringify({ ok: failure === null, failure, language, turns }));
