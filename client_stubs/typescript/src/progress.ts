/** What a turn has brought so far, folded from its events. Pure: no I/O. */

import { SequenceGapError, type ErrorFacts } from "./errors.js";
import type { AttemptStarted, Restarted, TurnEvent } from "./gen/warmline/v1/turn_service.js";
import { FullReason, SlotOutcome, Transport, type Item, type Usage } from "./gen/warmline/v1/types.js";
import { customToolOutput, functionOutput, parseObject, verbatimMember } from "./items.js";

export type Ending = "completed" | "incomplete" | "unfinished";

/** A function that the model wants called; `arguments` is its JSON text. */
export class FunctionCall {
  readonly arguments: string;

  constructor(
    readonly callId: string,
    readonly name: string,
    argumentsJson: string,
  ) {
    this.arguments = argumentsJson;
  }

  /** The item that answers the call. */
  answer(output: string): Item {
    return functionOutput(this.callId, output);
  }
}

/** A custom tool that the model wants called; `input` is free text. */
export class CustomToolCall {
  constructor(
    readonly callId: string,
    readonly name: string,
    readonly input: string,
  ) {}

  /** The item that answers the call. */
  answer(output: string): Item {
    return customToolOutput(this.callId, output);
  }
}

/** A turn's outcome. Undefined and blank mean: not told, or not known. */
export interface TurnResult {
  /** "unfinished" only in a snapshot. */
  readonly ending: Ending;
  /** Text of the answer: of the finished messages, then what was streamed of an unfinished one. */
  readonly text: string;
  /** The finished output items, oldest first, each one JSON object byte for byte as it came: send them back so. */
  readonly items: readonly Uint8Array[];
  readonly functionCalls: readonly FunctionCall[];
  readonly customToolCalls: readonly CustomToolCall[];
  readonly turnId: string;
  readonly requestId: string;
  readonly conversationId: string;
  readonly responseId: string;
  /** The provider's id of the request; undefined: unknown, as always over a WebSocket. */
  readonly upstreamRequestId: string | undefined;
  readonly usage: Usage | undefined;
  readonly endTurn: boolean | undefined;
  /** Why the response ended early; undefined: it did not. */
  readonly incompleteReason: string | undefined;
  /** Items of the lane's conversation, for a next turn's `appendAt`; undefined before the end. */
  readonly historyPosition: bigint | undefined;
  /** Number of the newest attempt upstream. */
  readonly attempts: number;
  /** Of the newest attempt: ADOPTED, AWAITED, REUSED, COLD or NONE; the number itself where no name is known. */
  readonly slotOutcome: string;
  /** Of the newest attempt: WEBSOCKET, HTTP or FIXTURE; likewise. */
  readonly transport: string;
  readonly connectionId: string;
  /** Whether the newest attempt sent only new items. */
  readonly incremental: boolean;
  /** Why it did not. */
  readonly fullReason: string;
  /** Why the call went on over HTTP; undefined: it did not. */
  readonly fellBack: string | undefined;
  /** The model that really served the request. */
  readonly serverModel: string;
  /** Events of a newer server that this client skipped. */
  readonly unknownEvents: number;
  /** How many of `slotOutcome`, `transport` and `fullReason` are a newer server's, and so numbers. */
  readonly unknownValues: number;
}

/** An item that is done; `text` is a message's, else blank. */
interface Finished {
  readonly sequence: bigint;
  readonly attempt: number;
  readonly item: Uint8Array;
  readonly text: string;
}

type Member = NonNullable<TurnEvent["event"]>;
type End = Extract<Member, { $case: "completed" | "incomplete" }>;

/** Folds the events of one call, in order. Linear in their number. */
export class TurnProgress {
  turnId: string;
  requestId: string;
  /** Of the newest event; 0: none has come. */
  sequence = 0n;
  unknownEvents = 0;
  /** Whether a resend took back text that had been delivered. */
  hasVoidedText = false;
  #attempts = 0;
  #conversationId = "";
  #responseId = "";
  #upstreamRequestId: string | undefined;
  #items: Finished[] = [];
  /** Pieces of messages that are not finished, by item id (blank when not told), in order of their beginning. */
  readonly #openText = new Map<string, string[]>();
  #attempt: AttemptStarted | undefined;
  #fellBack: string | undefined;
  #serverModel = "";
  #end: End | undefined;

  constructor(turnId: string, requestId: string) {
    this.turnId = turnId;
    this.requestId = requestId;
  }

  /** Whether the last event has come. */
  get isOver(): boolean {
    return this.#end !== undefined;
  }

  /**
   * Takes the next event.
   *
   * @returns whether the caller shall see it; false for a member that this client does not know.
   * @throws SequenceGapError an event is missing or doubled; the progress stays as it was.
   */
  accept(event: TurnEvent): boolean {
    if (event.sequence !== this.sequence + 1n) {
      const text = `read turn events: event ${event.sequence} came, expected ${this.sequence + 1n}`;
      throw new SequenceGapError(text, this.facts());
    }
    this.sequence = event.sequence;
    this.#attempts = Math.max(this.#attempts, event.attempt);
    if (event.event === undefined) {
      this.unknownEvents += 1;
      return false;
    }
    this.#take(event, event.event);
    return true;
  }

  /** The ids so far, for an error. */
  facts(): Partial<ErrorFacts> {
    return {
      turnId: this.turnId,
      requestId: this.requestId,
      responseId: this.#responseId,
      upstreamRequestId: this.#upstreamRequestId,
      attempts: this.#attempts || undefined,
    };
  }

  /** The outcome so far; the events' end decides when it is final. */
  snapshot(): TurnResult {
    const end = this.#end;
    const outputs = this.#items.map(({ item }) => parseObject(item));
    const slotOutcome = nameOf(SlotOutcome, this.#attempt?.slotOutcome);
    const transport = nameOf(Transport, this.#attempt?.transport);
    const fullReason = nameOf(FullReason, this.#attempt?.fullReason);
    return {
      ending: end?.$case ?? "unfinished",
      text: this.#items.map(({ text }) => text).join("") + [...this.#openText.values()].flat().join(""),
      items: this.#items.map(({ item }) => item),
      functionCalls: outputs.filter(({ type }) => type === "function_call").map(functionCall),
      customToolCalls: outputs.filter(({ type }) => type === "custom_tool_call").map(customToolCall),
      turnId: this.turnId,
      requestId: this.requestId,
      conversationId: this.#conversationId,
      responseId: this.#responseId,
      upstreamRequestId: this.#upstreamRequestId,
      usage: end?.value.usage,
      endTurn: end?.$case === "completed" ? end.value.endTurn : undefined,
      incompleteReason: end?.$case === "incomplete" ? end.value.reason : undefined,
      historyPosition: end?.value.historyPosition,
      attempts: this.#attempts,
      slotOutcome,
      transport,
      connectionId: this.#attempt?.connectionId ?? "",
      incremental: this.#attempt?.incremental ?? false,
      fullReason,
      fellBack: this.#fellBack,
      serverModel: this.#serverModel,
      unknownEvents: this.unknownEvents,
      unknownValues: [slotOutcome, transport, fullReason].filter((name) => /^-?\d+$/.test(name)).length,
    };
  }

  #take(event: TurnEvent, member: Member): void {
    switch (member.$case) {
      case "admitted":
        this.turnId = member.value.turnId;
        this.requestId = member.value.requestId;
        this.#conversationId = member.value.conversationId;
        break;
      case "attemptStarted":
        this.#attempt = member.value;
        this.#responseId = "";
        this.#upstreamRequestId = undefined;
        break;
      case "retrying":
        this.#responseId = member.value.responseId;
        this.#upstreamRequestId = member.value.upstreamRequestId;
        break;
      case "fellBack":
        this.#fellBack = member.value.reason;
        break;
      case "restarted":
        this.#takeRestarted(member.value);
        break;
      default:
        this.#takeOfModel(event, member);
    }
  }

  /** Takes the events that the model made. */
  #takeOfModel(event: TurnEvent, member: Member): void {
    switch (member.$case) {
      case "created":
        this.#responseId = member.value.responseId;
        break;
      case "itemDone":
        if (member.value.item?.content?.$case === "json") {
          this.#finishItem(event, member.value.item.content.value);
        }
        break;
      case "textDelta":
        this.#addText(member.value.itemId, member.value.delta);
        break;
      case "serverModel":
        this.#serverModel = member.value.model;
        break;
      case "completed":
      case "incomplete":
        this.#end = member;
        this.#responseId = member.value.responseId || this.#responseId;
        this.#upstreamRequestId = member.value.upstreamRequestId;
        break;
      case "raw":
        this.#takeRaw(event, event.payloadJson ?? new Uint8Array());
        break;
    }
  }

  #takeRestarted(restarted: Restarted): void {
    const kept = new Set(restarted.keptItemSequences);
    const counts = this.#items.filter((one) => one.attempt >= restarted.attempt || kept.has(one.sequence));
    this.hasVoidedText ||= textLength(this.#items) > textLength(counts) || this.#openText.size > 0;
    this.#items = counts;
    this.#openText.clear();
  }

  /** Reads what a result needs of events that the caller asked to have raw. */
  #takeRaw(event: TurnEvent, payload: Uint8Array): void {
    switch (event.upstreamType) {
      case "response.output_item.done": {
        const item = verbatimMember(payload, "item");
        if (item !== undefined) {
          this.#finishItem(event, item);
        }
        break;
      }
      case "response.output_text.delta": {
        const delta = parseObject(payload);
        this.#addText(textOf(delta, "item_id"), textOf(delta, "delta"));
        break;
      }
      case "response.created": {
        const response = verbatimMember(payload, "response");
        this.#responseId = response === undefined ? "" : textOf(parseObject(response), "id");
        break;
      }
    }
  }

  #addText(itemId: string, delta: string): void {
    const pieces = this.#openText.get(itemId);
    if (pieces === undefined) {
      this.#openText.set(itemId, [delta]);
    } else {
      pieces.push(delta);
    }
  }

  #finishItem(event: TurnEvent, item: Uint8Array): void {
    const output = parseObject(item);
    if (output.type === "message") {
      this.#openText.delete(textOf(output, "id"));
      this.#openText.delete("");
    }
    this.#items.push({ sequence: event.sequence, attempt: event.attempt, item, text: messageText(output) });
  }
}

/** The piece of the answer's text that an event carries, typed or raw; undefined for any other event. */
export function textDelta(event: TurnEvent): string | undefined {
  if (event.event?.$case === "textDelta") {
    return event.event.value.delta;
  }
  if (event.event?.$case === "raw" && event.upstreamType === "response.output_text.delta") {
    return textOf(parseObject(event.payloadJson ?? new Uint8Array()), "delta");
  }
  return undefined;
}

function textLength(items: readonly Finished[]): number {
  return items.reduce((sum, { text }) => sum + text.length, 0);
}

function textOf(value: Record<string, unknown>, name: string): string {
  const found = value[name];
  return typeof found === "string" ? found : "";
}

/** The text of a message's parts; blank for any other item. */
function messageText(output: Record<string, unknown>): string {
  const parts: unknown = output.type === "message" ? output.content : undefined;
  if (!Array.isArray(parts)) {
    return "";
  }
  return parts
    .filter((part): part is Record<string, unknown> => typeof part === "object" && part !== null)
    .map((part) => (part.type === "output_text" ? textOf(part, "text") : ""))
    .join("");
}

function functionCall(output: Record<string, unknown>): FunctionCall {
  return new FunctionCall(textOf(output, "call_id"), textOf(output, "name"), textOf(output, "arguments"));
}

function customToolCall(output: Record<string, unknown>): CustomToolCall {
  return new CustomToolCall(textOf(output, "call_id"), textOf(output, "name"), textOf(output, "input"));
}

/** A value's name, blank for UNSPECIFIED, the number when a newer server made it. */
function nameOf(names: Readonly<Record<number, string>>, value: number | undefined): string {
  return value ? (names[value] ?? String(value)) : "";
}
