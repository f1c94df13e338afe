/** The client: one connection to one server. */

import type { ChannelOptions, MethodDefinition } from "@grpc/grpc-js";

import "./grpc_js_endings.js";
import { Connection, type Tls, type Token, type UnaryOptions } from "./connection.js";
import {
  SessionServiceClient,
  SessionServiceService,
  type Session as SessionState,
} from "./gen/warmline/v1/session_service.js";
import { TraceServiceClient } from "./gen/warmline/v1/trace_service.js";
import { TurnServiceClient } from "./gen/warmline/v1/turn_service.js";
import { RequestOptions, SessionConfig } from "./gen/warmline/v1/types.js";
import { withOptions, type Options } from "./items.js";
import { DEFAULT_RETRY, type CallRetry } from "./retry.js";
import { Session, type Cancellable } from "./session.js";

/** Longest message both ways. A choice: a conversation with several images inline; the server has its own limit. */
const DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** What a connection is. */
export interface ClientOptions {
  /** true: with Node's roots; a `Tls`: with its certificates (mTLS with a certificate and key). Default: plain text. */
  tls?: boolean | Tls | undefined;
  /** Sent as bearer; a function is asked before each call. */
  token?: Token | undefined;
  /** Send a token beyond this machine without TLS, where something else encrypts. */
  allowPlaintextToken?: boolean | undefined;
  /** Longest message, both ways. Default: 64 MiB. */
  maxMessageBytes?: number | undefined;
  /** A ping after this long without traffic while a call runs; the server must allow it. Default: 30 000. */
  keepaliveMs?: number | undefined;
  /** Without an answer to a ping for this long, the connection counts as lost. Default: 10 000. */
  keepaliveTimeoutMs?: number | undefined;
  /** The client's own resends; what is left out has its default. */
  retry?: Partial<CallRetry> | undefined;
  /** Deadline of every call but turns and watches; Infinity: none. Default: 30 000. */
  unaryTimeoutMs?: number | undefined;
  /** gRPC's own, over those made here. */
  channelOptions?: ChannelOptions | undefined;
}

/** Parts of a config; what is left out has its default. */
export type SessionConfigInit = Parameters<typeof SessionConfig.fromPartial>[0];

/** How a session is made; besides these, options of every turn of the session. */
export interface SessionOptions extends Options, Cancellable {
  /** What the session is. `upstream` and the options are written over it. */
  config?: SessionConfigInit | undefined;
  upstream?: string | undefined;
  /**
   * "now" (default) creates the session and so begins its warm-up; "lazy": the first turn does; "attach": the session
   * is another's, no config is sent, and a missing one is SessionNotFoundError.
   */
  start?: "now" | "lazy" | "attach" | undefined;
  /** The end of an `await using` block closes the session at the server; else it stays warm until it expires. */
  closeOnDispose?: boolean | undefined;
}

/** A connection to a Warmline server; the first call dials it. Closing it cancels what runs on it. */
export class Client implements AsyncDisposable {
  /** The generated stub, as it is. */
  readonly sessions: SessionServiceClient;
  /** The generated stub, as it is; a streamed call must be cancelled by whoever made it. */
  readonly turns: TurnServiceClient;
  /** The generated stub, as it is. */
  readonly traces: TraceServiceClient;
  readonly #connection: Connection;

  /**
   * @param target host and port, or any name that gRPC resolves.
   * @throws TypeError a token would go beyond this machine in plain text.
   */
  constructor(target = "127.0.0.1:50051", options: ClientOptions = {}) {
    const connection = new Connection({
      target,
      tls: options.tls ?? false,
      token: options.token,
      allowPlaintextToken: options.allowPlaintextToken ?? false,
      maxMessageBytes: options.maxMessageBytes ?? DEFAULT_MAX_MESSAGE_BYTES,
      keepaliveMs: options.keepaliveMs ?? 30_000,
      keepaliveTimeoutMs: options.keepaliveTimeoutMs ?? 10_000,
      retry: { ...DEFAULT_RETRY, ...options.retry },
      unaryTimeoutMs: options.unaryTimeoutMs ?? 30_000,
      channelOptions: options.channelOptions ?? {},
    });
    const shared = { channelOverride: connection.channel };
    this.sessions = new SessionServiceClient(target, connection.credentials, shared);
    this.turns = new TurnServiceClient(target, connection.credentials, shared);
    this.traces = new TraceServiceClient(target, connection.credentials, shared);
    this.#connection = connection;
  }

  /**
   * Makes a session and, unless `start` says otherwise, creates it at the server if it is not there.
   *
   * @param sessionId 1 to 64 of `[A-Za-z0-9._-]`.
   * @throws WarmlineError the server refused it.
   * @throws TypeError "attach" with a config, or an option that there is not.
   */
  async session(sessionId: string, all: SessionOptions = {}): Promise<Session> {
    const { config, upstream, start = "now", closeOnDispose = false, signal, ...options } = all;
    const isAttached = start === "attach";
    if (isAttached && (config || upstream || Object.keys(options).length > 0)) {
      throw new TypeError("attach session: it has its config already; give none");
    }
    const merged = isAttached ? undefined : mergedConfig(config, upstream, options);
    if (start === "now") {
      const request = { sessionId, config: merged };
      await this.#connection.unary(SessionServiceService.createSession, request, { sessionId, signal });
    }
    return new Session(this.#connection, sessionId, merged, closeOnDispose);
  }

  /** The caller's sessions that have all of the labels, by id, over all pages. */
  async *listSessions(
    filter: Cancellable & { labels?: Record<string, string> | undefined; pageSize?: number | undefined } = {},
  ): AsyncGenerator<SessionState, undefined, undefined> {
    const { labels = {}, pageSize = 0, signal } = filter;
    let pageToken = "";
    do {
      const request = { labels, pageSize, pageToken };
      const page = await this.#connection.unary(SessionServiceService.listSessions, request, { signal });
      yield* page.sessions;
      pageToken = page.nextPageToken;
    } while (pageToken);
  }

  /**
   * Makes any unary call of the contract, as the methods here do: `client.call(SessionServiceService.listModels, …)`.
   *
   * @throws WarmlineError the call failed.
   */
  call<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    options: UnaryOptions = {},
  ): Promise<Response> {
    return this.#connection.unary(method, request, options);
  }

  /** Cancels what runs and closes the connection. */
  close(): void {
    this.#connection.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

function mergedConfig(config: SessionConfigInit = {}, upstream: string | undefined, options: Options): SessionConfig {
  const merged = SessionConfig.fromPartial(config);
  merged.upstream = upstream ?? merged.upstream;
  if (Object.keys(options).length > 0) {
    merged.requestDefaults = withOptions(merged.requestDefaults ?? RequestOptions.create(), options);
  }
  return merged;
}
