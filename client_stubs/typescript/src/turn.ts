/** One call: a turn's events as they come, and its outcome. */

import { outgoing, Tries, typed, type Connection, type Outgoing } from "./connection.js";
import { ProtocolError, TextVoidedError, TurnCancelledError } from "./errors.js";
import {
  TurnServiceService,
  type StreamTurnRequest,
  type StreamTurnResponse,
  type TurnEvent,
} from "./gen/warmline/v1/turn_service.js";
import { textDelta, TurnProgress, type TurnResult } from "./progress.js";
import type { ReadCall } from "./read_call.js";

/**
 * How long the server may take to end the stream after the last event, before the call is cancelled. A choice: the
 * outcome is known by then, and a call that ends by itself is not recorded as cancelled at the other end.
 */
const END_MS = 1000;

/** How a call is limited and stopped. */
export interface TurnLimits {
  /** Infinity: no deadline. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
}

/**
 * A call, made and sent by `Session.turn`.
 *
 * Iterate it for its events, or `text()` for the answer's text, or ask for the `result()`; each reads on where the other
 * stopped. Leaving a loop early, `close()`, the end of an `await using` block and the signal cancel what still runs.
 */
export class Turn implements AsyncIterableIterator<TurnEvent, undefined, undefined>, AsyncDisposable {
  /** The message as it was sent. */
  readonly request: StreamTurnRequest;
  readonly #connection: Connection;
  readonly #sent: Outgoing<StreamTurnResponse>;
  readonly #progress: TurnProgress;
  readonly #tries: Tries;
  readonly #stopping = new AbortController();
  readonly #release: () => void;
  #call: Promise<ReadCall<StreamTurnResponse>>;
  #ready: readonly TurnEvent[] = [];
  #at = 0;
  #lastRead: Promise<unknown> = Promise.resolve();
  #error: unknown;
  #isLeft = false;

  /** Sends the call. What fails is thrown by the first read. */
  constructor(connection: Connection, request: StreamTurnRequest, limits: TurnLimits) {
    this.request = request;
    this.#connection = connection;
    this.#sent = outgoing(TurnServiceService.streamTurn, request);
    this.#progress = new TurnProgress(request.turnId, request.requestId);
    this.#tries = new Tries(connection.retry, limits.timeoutMs);
    this.#release = connection.watch((reason) => this.cancel(reason), limits.signal);
    this.#call = this.#send();
  }

  /** The turn's id, for its tool follow-ups; blank until the server told the one it made. */
  get turnId(): string {
    return this.#progress.turnId;
  }

  /** The call's id. */
  get requestId(): string {
    return this.#progress.requestId;
  }

  /** Events of a newer server that were skipped. */
  get unknownEvents(): number {
    return this.#progress.unknownEvents;
  }

  /** The outcome so far, also after a failure: what was delivered and counts. */
  snapshot(): TurnResult {
    return this.#progress.snapshot();
  }

  /** Cancels the call; a pending read ends with TurnCancelledError, whose `cause` is the reason. */
  cancel(reason?: unknown): void {
    this.#stopping.abort(reason);
  }

  /**
   * Reads the rest and returns the outcome; again, the same.
   *
   * @throws WarmlineError the call failed, or was left before its end.
   */
  async result(): Promise<TurnResult> {
    while (!(await this.next()).done) {
      // The progress has the event.
    }
    if (!this.#progress.isOver) {
      throw new TurnCancelledError("read turn: it was left before its end", this.#progress.facts());
    }
    return this.snapshot();
  }

  /**
   * The pieces of the answer's text, as they come.
   *
   * @throws TextVoidedError a resend took back pieces that had been given out; the turn goes on.
   * @throws WarmlineError the call failed.
   */
  async *text(): AsyncGenerator<string, undefined, undefined> {
    let isGiven = false;
    try {
      for (let step = await this.next(); !step.done; step = await this.next()) {
        if (step.value.event?.$case === "restarted" && this.#progress.hasVoidedText) {
          throw new TextVoidedError("read text: a resend took back what was read", this.#progress.facts());
        }
        const piece = textDelta(step.value);
        if (piece !== undefined) {
          isGiven = true;
          yield piece;
          isGiven = false;
        }
      }
    } finally {
      // Only a caller who leaves early comes here from the yield.
      if (isGiven) {
        await this.close();
      }
    }
  }

  /**
   * The next event that this client knows; `done` after the last one, or once the turn was left.
   *
   * @throws WarmlineError the call failed; again, the same.
   */
  next(): Promise<IteratorResult<TurnEvent, undefined>> {
    const read = this.#lastRead.then(() => this.#next());
    this.#lastRead = read.catch(() => undefined);
    return read;
  }

  /** Leaves the turn, as a loop does that ends early: cancels what still runs. */
  async return(): Promise<IteratorReturnResult<undefined>> {
    if (this.#progress.isOver) {
      await this.#waitEnd();
    }
    this.#leave();
    return { done: true, value: undefined };
  }

  /** Leaves the turn: cancels what still runs. */
  async close(): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #next(): Promise<IteratorResult<TurnEvent, undefined>> {
    if (this.#error !== undefined) {
      throw this.#error;
    }
    try {
      while (!this.#isLeft && !this.#progress.isOver) {
        const event = this.#ready[this.#at];
        if (event === undefined) {
          await this.#fill();
        } else {
          this.#at += 1;
          if (this.#progress.accept(event)) {
            return { done: false, value: event };
          }
        }
      }
    } catch (error) {
      this.#error = error;
      this.#leave();
      throw error;
    }
    return this.return();
  }

  /** Reads a message; sends the call again where that is allowed and nothing of it was delivered. */
  async #fill(): Promise<void> {
    try {
      this.#ready = (await this.#read()).events;
      this.#at = 0;
    } catch (error) {
      if (this.#progress.sequence > 0n) {
        throw error;
      }
      await this.#tries.waitOrThrow(error, this.#stopping.signal);
      this.#call = this.#send();
    }
  }

  async #read(): Promise<StreamTurnResponse> {
    let message: StreamTurnResponse | undefined;
    try {
      message = await (await this.#call).read();
    } catch (error) {
      throw typed(error, this.#stopping.signal, this.#progress.facts());
    }
    if (message === undefined) {
      const text = "read turn: found the end of the stream, expected a completed or incomplete event";
      throw new ProtocolError(text, this.#progress.facts());
    }
    return message;
  }

  /** Lets the server end the stream by itself; however it does, the outcome stands. */
  async #waitEnd(): Promise<void> {
    const call = await this.#call;
    const timer = setTimeout(() => call.cancel(), END_MS);
    try {
      while ((await call.read()) !== undefined) {
        // Nothing counts after the end.
      }
    } catch {
      // The status does not count either.
    } finally {
      clearTimeout(timer);
    }
  }

  #leave(): void {
    this.#isLeft = true;
    this.#release();
    this.cancel();
  }

  #send(): Promise<ReadCall<StreamTurnResponse>> {
    const { sessionId } = this.request;
    const call = this.#connection.stream(this.#sent, sessionId, this.#tries.deadline(), this.#stopping.signal);
    // Thrown by the read; a turn that nobody reads must not end the process.
    call.catch(() => undefined);
    return call;
  }
}
