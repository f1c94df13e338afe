/** One conversation's session at the server, seen from the client. */

import { randomUUID } from "node:crypto";

import { outgoing, typed, type Connection } from "./connection.js";
import { WarmlineError } from "./errors.js";
import {
  SessionServiceService,
  WatchSessionRequest,
  type Session as SessionState,
  type Slot,
  type WatchSessionResponse,
} from "./gen/warmline/v1/session_service.js";
import { TraceServiceService, type Inference } from "./gen/warmline/v1/trace_service.js";
import {
  BusyMode,
  CancelTurnRequest,
  EventMode,
  InputMode,
  RetryMode,
  StreamTurnRequest,
  TurnServiceService,
} from "./gen/warmline/v1/turn_service.js";
import { RequestOptions, type SessionConfig } from "./gen/warmline/v1/types.js";
import { items, jsonBytes, withOptions, type ItemLike, type Json, type Options } from "./items.js";
import type { ReadCall } from "./read_call.js";
import { Turn } from "./turn.js";

/** How long leaving a session waits for its close. A choice: the server's idle expiry does the rest. */
const CLOSE_MS = 5000;

/** What every call can be given. */
export interface Cancellable {
  /** Cancels the call: it ends with TurnCancelledError. */
  signal?: AbortSignal | undefined;
}

/** How a turn is made; besides these, any of the request's options, over the session's defaults. */
export interface TurnOptions extends Options, Cancellable {
  /** The same for a user request and all its tool follow-ups; left out: the server makes one. */
  turnId?: string | undefined;
  /** Left out: the default lane. */
  lane?: string | undefined;
  /** Names this call, also when the client sends it again; left out: made here. */
  requestId?: string | undefined;
  /** The input is only what is new, after this many items of the lane; left out: it is everything. */
  appendAt?: number | bigint | undefined;
  retry?: "before_output" | "reference" | "never" | undefined;
  onBusy?: "reject" | "wait" | "preempt" | undefined;
  events?: "typed" | "raw" | "both" | undefined;
  /** Limit that the server keeps; left out: its own. */
  maxDurationMs?: number | undefined;
  /** Deadline of the call with all its sends; left out: none. */
  timeoutMs?: number | undefined;
  /** Further fields of the request body, merged beneath the options. */
  requestJson?: Json | undefined;
  /** The turn's metadata for the provider. */
  turnMetadata?: Json | undefined;
}

/** What `Session.listInferences` lists; what is left out: all. */
export interface InferenceFilter extends Cancellable {
  turnId?: string | undefined;
  /** Only of this response or upstream request. */
  upstreamId?: string | undefined;
  /** Left out: the server's. */
  pageSize?: number | undefined;
}

/** A session, made by `Client.session`. Its config goes with each turn, so a restarted server is not noticed. */
export class Session implements AsyncDisposable {
  readonly sessionId: string;
  /** Undefined: the session is another's, and only attached to. */
  readonly config: SessionConfig | undefined;
  readonly #connection: Connection;
  readonly #closesOnDispose: boolean;

  constructor(connection: Connection, sessionId: string, config: SessionConfig | undefined, closesOnDispose: boolean) {
    this.sessionId = sessionId;
    this.config = config;
    this.#connection = connection;
    this.#closesOnDispose = closesOnDispose;
  }

  /**
   * Makes a turn and sends it; what fails is thrown by its first read.
   *
   * @param input the conversation, oldest first, or a single item; a text is a user's message.
   * @throws TypeError an option or a value that there is not.
   */
  turn(input: ItemLike | Iterable<ItemLike>, all: TurnOptions = {}): Turn {
    const { turnId, lane, requestId, appendAt, retry, onBusy, events, maxDurationMs, ...others } = all;
    const { timeoutMs = Infinity, signal, requestJson, turnMetadata, ...options } = others;
    const request = StreamTurnRequest.create({
      sessionId: this.sessionId,
      lane,
      turnId,
      requestId: requestId || randomUUID(),
      inputMode: appendAt === undefined ? InputMode.FULL : InputMode.APPEND,
      retry: mode(RetryMode, retry),
      onBusy: mode(BusyMode, onBusy),
      events: mode(EventMode, events),
      requestJson: requestJson && jsonBytes(requestJson),
      turnMetadataJson: turnMetadata && jsonBytes(turnMetadata),
      maxDuration: maxDurationMs === undefined ? undefined : duration(maxDurationMs),
    });
    request.sessionConfig = this.config;
    request.input = items(input);
    request.expectedHistoryPosition = appendAt === undefined ? undefined : BigInt(appendAt);
    if (Object.keys(options).length > 0) {
      request.options = withOptions(RequestOptions.create(), options);
    }
    return new Turn(this.#connection, request, { timeoutMs, signal });
  }

  /** The session's state. */
  async get({ signal }: Cancellable = {}): Promise<SessionState> {
    const { sessionId } = this;
    const response = await this.#connection.unary(
      SessionServiceService.getSession,
      { sessionId },
      { sessionId, signal },
    );
    return told(response.session);
  }

  /** The session's state now and after each change; the call is made at once. */
  watch({ signal }: Cancellable = {}): Watch {
    return new Watch(this.#connection, this.sessionId, signal);
  }

  /** Closes the session: its running calls end with SessionClosedError. Returns its last state. */
  close({ signal }: Cancellable = {}): Promise<SessionState> {
    return this.#close({ signal });
  }

  /** Starts a warm-up if the slot is idle; with `wait`, returns when its handshake has ended, well or not. */
  async preconnect({ wait = false, signal }: Cancellable & { wait?: boolean | undefined } = {}): Promise<Slot> {
    const { sessionId } = this;
    const response = await this.#connection.unary(
      SessionServiceService.preconnect,
      { sessionId, wait },
      { sessionId, signal },
    );
    return told(response.slot);
  }

  /**
   * Starts a new window and returns its generation.
   *
   * @param options `expectedGeneration`: the one that the caller knows; left out: whichever it is, and the call is then
   *   never sent twice.
   */
  async advanceWindow({
    expectedGeneration,
    signal,
  }: Cancellable & { expectedGeneration?: bigint | number | undefined } = {}): Promise<bigint> {
    const { sessionId } = this;
    const isRepeatable = expectedGeneration !== undefined;
    const response = await this.#connection.unary(
      SessionServiceService.advanceWindow,
      { sessionId, expectedGeneration: isRepeatable ? BigInt(expectedGeneration) : undefined },
      { sessionId, signal, isRepeatable },
    );
    return response.windowGeneration;
  }

  /**
   * Cancels running calls by request or turn; returns the request ids of those that end now.
   *
   * @throws TurnNotFoundError none matches.
   */
  async cancelTurn({
    signal,
    ...ids
  }: Cancellable & { requestId?: string | undefined; turnId?: string | undefined }): Promise<string[]> {
    const { sessionId } = this;
    const request = CancelTurnRequest.create({ sessionId, ...ids });
    const response = await this.#connection.unary(TurnServiceService.cancelTurn, request, { sessionId, signal });
    return response.requestIds;
  }

  /** The session's recent attempts upstream, newest first, over all pages. */
  async *listInferences(filter: InferenceFilter = {}): AsyncGenerator<Inference, undefined, undefined> {
    const { turnId = "", upstreamId = "", pageSize = 0, signal } = filter;
    const { sessionId } = this;
    let pageToken = "";
    do {
      const request = { sessionId, turnId, upstreamId, pageSize, pageToken };
      const page = await this.#connection.unary(TraceServiceService.listInferences, request, { sessionId, signal });
      yield* page.inferences;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /**
   * Leaves the session: closes it if it was made so. How that goes is not told, for what ended the block matters more;
   * the server's idle expiry does the rest.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#closesOnDispose) {
      return;
    }
    try {
      await this.#close({ timeoutMs: CLOSE_MS });
    } catch (error) {
      if (!(error instanceof WarmlineError)) {
        throw error;
      }
    }
  }

  async #close(options: Cancellable & { timeoutMs?: number }): Promise<SessionState> {
    const { sessionId } = this;
    const response = await this.#connection.unary(
      SessionServiceService.closeSession,
      { sessionId },
      { sessionId, ...options },
    );
    return told(response.session);
  }
}

/** States of a session, made by `Session.watch`. Ends after the state CLOSED; leaving a loop early ends the call. */
export class Watch implements AsyncIterableIterator<SessionState, undefined, undefined>, AsyncDisposable {
  readonly #stopping = new AbortController();
  readonly #release: () => void;
  readonly #call: Promise<ReadCall<WatchSessionResponse>>;

  constructor(connection: Connection, sessionId: string, signal: AbortSignal | undefined) {
    this.#release = connection.watch((reason) => this.#stopping.abort(reason), signal);
    const sent = outgoing(SessionServiceService.watchSession, WatchSessionRequest.create({ sessionId }));
    this.#call = connection.stream(sent, sessionId, Infinity, this.#stopping.signal);
    // Thrown by the read; a watch that nobody reads must not end the process.
    this.#call.catch(() => undefined);
  }

  /**
   * The next state; one read at a time.
   *
   * @throws WarmlineError the call failed. A call that is lost is not made again: a new watch starts with the state.
   */
  async next(): Promise<IteratorResult<SessionState, undefined>> {
    try {
      const message = await (await this.#call).read();
      return message === undefined ? await this.return() : { done: false, value: told(message.session) };
    } catch (error) {
      this.#release();
      throw typed(error, this.#stopping.signal);
    }
  }

  /** Ends the watch. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    this.#release();
    this.#stopping.abort();
    return { done: true, value: undefined };
  }

  /** Ends the watch. */
  async close(): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The value of an enumeration by its name in lower case; undefined stays UNSPECIFIED. */
function mode<Value extends number>(values: Readonly<Record<string, string | Value>>, name: string | undefined): Value {
  const value = values[(name ?? "unspecified").toUpperCase()];
  if (typeof value !== "number") {
    throw new TypeError(`make turn: there is no mode ${name}`);
  }
  return value;
}

function duration(ms: number): { seconds: bigint; nanos: number } {
  const nanos = BigInt(Math.round(ms * 1e6));
  return { seconds: nanos / 1_000_000_000n, nanos: Number(nanos % 1_000_000_000n) };
}

/** What the contract says is always there. */
function told<Value>(value: Value | undefined): Value {
  if (value === undefined) {
    throw new WarmlineError("read answer: found nothing, expected a state");
  }
  return value;
}
