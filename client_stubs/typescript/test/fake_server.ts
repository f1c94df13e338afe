/** A server in this process that does what a test says. */

import { once } from "node:events";

import {
  Metadata,
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerUnaryCall,
  type ServerWritableStream,
  type status,
} from "@grpc/grpc-js";

import { Any } from "../src/gen/google/protobuf/any.js";
import { ErrorInfo, RetryInfo } from "../src/gen/google/rpc/error_details.js";
import { Status } from "../src/gen/google/rpc/status.js";
import { Client, type ClientOptions, type Turn, type TurnOptions } from "../src/index.js";
import {
  SessionServiceService,
  StreamTurnResponse,
  TurnEvent,
  TurnServiceService,
  type CloseSessionRequest,
  type CloseSessionResponse,
  type CreateSessionRequest,
  type CreateSessionResponse,
  type StreamTurnRequest,
  type WatchSessionRequest,
  type WatchSessionResponse,
} from "../src/v1.js";

export type TurnCall = ServerWritableStream<StreamTurnRequest, StreamTurnResponse>;
type Member = NonNullable<TurnEvent["event"]>;

export interface Handlers {
  streamTurn?: (call: TurnCall, sends: number) => void;
  createSession?: (
    call: ServerUnaryCall<CreateSessionRequest, CreateSessionResponse>,
    answer: sendUnaryData<CreateSessionResponse>,
    sends: number,
  ) => void;
  closeSession?: (
    call: ServerUnaryCall<CloseSessionRequest, CloseSessionResponse>,
    answer: sendUnaryData<CloseSessionResponse>,
  ) => void;
  watchSession?: (call: ServerWritableStream<WatchSessionRequest, WatchSessionResponse>) => void;
}

export class FakeServer implements AsyncDisposable {
  readonly client: Client;
  readonly #server: Server;
  /** Fulfilled when a caller of StreamTurn or WatchSession has left before the end. */
  readonly left: Promise<void>;
  sends = 0;

  private constructor(server: Server, port: number, options: ClientOptions, left: Promise<void>) {
    this.#server = server;
    this.left = left;
    this.client = new Client(`127.0.0.1:${port}`, options);
  }

  static async start(handlers: Handlers, options: ClientOptions = {}): Promise<FakeServer> {
    const server = new Server();
    let fake: FakeServer;
    let onLeft: () => void = () => {};
    const left = new Promise<void>((resolve) => (onLeft = resolve));
    server.addService(TurnServiceService, {
      streamTurn: (call: TurnCall) => {
        fake.sends += 1;
        call.on("cancelled", onLeft);
        handlers.streamTurn?.(call, fake.sends);
      },
    });
    server.addService(SessionServiceService, {
      createSession: (
        call: ServerUnaryCall<CreateSessionRequest, CreateSessionResponse>,
        answer: sendUnaryData<CreateSessionResponse>,
      ) => {
        fake.sends += 1;
        handlers.createSession?.(call, answer, fake.sends);
      },
      closeSession: (
        call: ServerUnaryCall<CloseSessionRequest, CloseSessionResponse>,
        answer: sendUnaryData<CloseSessionResponse>,
      ) => handlers.closeSession?.(call, answer),
      watchSession: (call: ServerWritableStream<WatchSessionRequest, WatchSessionResponse>) => {
        call.on("cancelled", onLeft);
        handlers.watchSession?.(call);
      },
    });
    const port = await new Promise<number>((resolve, reject) =>
      server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
        error ? reject(error) : resolve(bound),
      ),
    );
    fake = new FakeServer(server, port, options, left);
    return fake;
  }

  /** A turn of a session that is not created by itself. */
  async turn(options: TurnOptions = {}): Promise<Turn> {
    const session = await this.client.session("s1", { model: "m", start: "lazy" });
    return session.turn("hello", options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close();
    this.#server.forceShutdown();
  }
}

/** One message with these events, numbered from `first`. */
export function message(first: number, ...members: Member[]): StreamTurnResponse {
  return StreamTurnResponse.create({ events: members.map((member, index) => event(first + index, member)) });
}

export function event(sequence: number, member: Member | undefined, rest: Partial<TurnEvent> = {}): TurnEvent {
  return { ...TurnEvent.create({ sequence, attempt: 1 }), event: member, ...rest };
}

export const ADMITTED: Member = {
  $case: "admitted",
  value: { turnId: "turn-1", requestId: "request-1", conversationId: "conversation-1", sessionCreated: false },
};

export const COMPLETED: Member = {
  $case: "completed",
  value: {
    responseId: "resp_1",
    upstreamRequestId: undefined,
    usage: undefined,
    endTurn: undefined,
    historyPosition: 2n,
  },
};

export function text(delta: string): Member {
  return { $case: "textDelta", value: { delta, itemId: "msg_1", contentIndex: 0 } };
}

/** A refusal in the server's way. */
export function refusal(code: status, details: readonly Any[]): { code: status; details: string; metadata: Metadata } {
  const metadata = new Metadata();
  metadata.set(
    "grpc-status-details-bin",
    Buffer.from(Status.encode(Status.create({ code, details: [...details] })).finish()),
  );
  return { code, details: "refused", metadata };
}

export function errorInfo(reason: string, metadata: Record<string, string> = {}, domain = "warmline"): Any {
  return any("google.rpc.ErrorInfo", ErrorInfo.encode(ErrorInfo.create({ reason, domain, metadata })).finish());
}

export function retryInfo(ms: number): Any {
  const retryDelay = { seconds: BigInt(Math.floor(ms / 1000)), nanos: (ms % 1000) * 1e6 };
  return any("google.rpc.RetryInfo", RetryInfo.encode(RetryInfo.create({ retryDelay })).finish());
}

export function any(type: string, value: Uint8Array): Any {
  return Any.create({ typeUrl: `type.googleapis.com/${type}`, value });
}

/** Ends a streamed call of the server with a refusal. */
export function refuse(call: TurnCall, code: status, ...details: Any[]): void {
  call.emit("error", refusal(code, details));
}

/** Waits until a call's caller has left. */
export async function untilCancelled(call: TurnCall): Promise<void> {
  await once(call, "cancelled");
}
