/** The channel to one server: how it is made, what every call carries, and the client's own resends. */

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import { Channel, Client, credentials, Metadata } from "@grpc/grpc-js";
import type { ChannelCredentials, ChannelOptions, MethodDefinition, ServiceError } from "@grpc/grpc-js";

import { fromServiceError, isServiceError, TurnCancelledError, WarmlineError, type ErrorFacts } from "./errors.js";
import { ReadCall } from "./read_call.js";
import { waitMs, type CallRetry } from "./retry.js";
import { loadTracing, traceHeaders } from "./tracing.js";
import { VERSION } from "./version.js";

/** The key that proxies route by. Source: protos/warmline/v1/session_service.proto. */
const SESSION_KEY = "x-warmline-session";

/** Ids that the contract allows; another one is left out of the metadata and refused by the server with its reason. */
const SESSION_ID = /^[A-Za-z0-9._-]{1,64}$/;

const LOOPBACK = /^(?:(?:(?:ipv4:)?127\.[\d.]+|localhost|(?:ipv6:)?\[::1\])(?::\d+)?|unix(?:-abstract)?:.*)$/;

/** A bearer token, or what gives the current one; asked before each call. */
export type Token = string | (() => string | Promise<string>);

/** PEM, as text or bytes. */
export type Pem = string | Uint8Array;

/** How the server is trusted, and with a certificate and key of its own, how it trusts the client (mTLS). */
export interface Tls {
  /** Left out: the roots that Node brings along. */
  readonly rootCertificates?: Pem | undefined;
  /** Left out: the client shows no certificate. */
  readonly certificateChain?: Pem | undefined;
  /** Of `certificateChain`. */
  readonly privateKey?: Pem | undefined;
  /** Name that the server's certificate must have; left out: the host that is dialled. */
  readonly serverName?: string | undefined;
}

/** Paths of the PEM files of a `Tls`. */
export interface TlsFiles {
  readonly rootCertificates?: string | undefined;
  readonly certificateChain?: string | undefined;
  readonly privateKey?: string | undefined;
  readonly serverName?: string | undefined;
}

/**
 * Reads PEM files, now: a client that shall use renewed files is made anew.
 *
 * @throws Error a file cannot be read.
 */
export function readTls(files: TlsFiles): Tls {
  const read = (path: string | undefined): Buffer | undefined => (path === undefined ? path : readFileSync(path));
  return {
    rootCertificates: read(files.rootCertificates),
    certificateChain: read(files.certificateChain),
    privateKey: read(files.privateKey),
    serverName: files.serverName,
  };
}

/** What a connection is; see `ClientOptions`. */
export interface ConnectionSettings {
  readonly target: string;
  readonly tls: boolean | Tls;
  readonly token: Token | undefined;
  readonly allowPlaintextToken: boolean;
  readonly maxMessageBytes: number;
  readonly keepaliveMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly retry: CallRetry;
  readonly unaryTimeoutMs: number;
  readonly channelOptions: ChannelOptions;
}

/** How a unary call is made. */
export interface UnaryOptions {
  /** Session that the call is about, for proxies that route by it. */
  readonly sessionId?: string | undefined;
  /** False for a call that does more when it arrives twice; it is then sent once. Default: true. */
  readonly isRepeatable?: boolean | undefined;
  /** Cancels the call. */
  readonly signal?: AbortSignal | undefined;
  /** Deadline with all sends; default: the client's. */
  readonly timeoutMs?: number | undefined;
}

/** What stops a call that runs, with the reason. */
type Stop = (reason: unknown) => void;

/** A request of a method as it goes on the wire; it is encoded once, however often it is sent. */
export interface Outgoing<Response> {
  readonly path: string;
  readonly bytes: Buffer;
  readonly decode: (bytes: Buffer) => Response;
}

/** @throws Error the request has a value that the contract cannot hold. */
export function outgoing<Request, Response>(
  method: MethodDefinition<Request, Response>,
  request: Request,
): Outgoing<Response> {
  return { path: method.path, bytes: method.requestSerialize(request), decode: method.responseDeserialize };
}

/** One open channel. */
export class Connection {
  readonly credentials: ChannelCredentials;
  readonly channel: Channel;
  readonly #settings: ConnectionSettings;
  readonly #client: Client;
  readonly #running = new Set<Stop>();
  #isClosed = false;

  /**
   * Makes the channel; nothing is dialled before the first call.
   *
   * @throws TypeError a token would go beyond this machine in plain text.
   */
  constructor(settings: ConnectionSettings) {
    check(settings);
    this.#settings = settings;
    this.credentials = channelCredentials(settings.tls);
    this.channel = new Channel(settings.target, this.credentials, channelOptions(settings));
    this.#client = new Client(settings.target, this.credentials, { channelOverride: this.channel });
    void loadTracing();
  }

  /** The client's own resends. */
  get retry(): CallRetry {
    return this.#settings.retry;
  }

  /** Cancels the calls that run and closes the channel. */
  close(): void {
    this.#isClosed = true;
    for (const stop of [...this.#running]) {
      stop(new Error("the client was closed"));
    }
    this.channel.close();
  }

  /**
   * Has a call stopped when its signal says so or the client is closed.
   *
   * @returns ends that.
   */
  watch(stop: Stop, signal: AbortSignal | undefined): () => void {
    const onAbort = (): void => stop(signal?.reason);
    if (signal?.aborted) {
      onAbort();
    }
    signal?.addEventListener("abort", onAbort, { once: true });
    this.#running.add(stop);
    return () => {
      signal?.removeEventListener("abort", onAbort);
      this.#running.delete(stop);
    };
  }

  /**
   * Makes a unary call.
   *
   * @throws WarmlineError the call failed.
   */
  async unary<Request, Response>(
    method: MethodDefinition<Request, Response>,
    request: Request,
    options: UnaryOptions = {},
  ): Promise<Response> {
    const sent = outgoing(method, request);
    const retry = { ...this.retry, ...(options.isRepeatable === false && { maxTries: 1 }) };
    const tries = new Tries(retry, options.timeoutMs ?? this.#settings.unaryTimeoutMs);
    const stopping = new AbortController();
    const release = this.watch((reason) => stopping.abort(reason), options.signal);
    try {
      for (;;) {
        try {
          return await this.#send(sent, options.sessionId, tries.deadline(), stopping.signal);
        } catch (error) {
          await tries.waitOrThrow(typed(error, stopping.signal), stopping.signal);
        }
      }
    } finally {
      release();
    }
  }

  /** Begins a streamed call; the signal cancels it. What fails is thrown by the read, but for a bad token. */
  async stream<Response>(
    sent: Outgoing<Response>,
    sessionId: string,
    deadline: number,
    signal: AbortSignal,
  ): Promise<ReadCall<Response>> {
    const metadata = await this.#metadata(sessionId);
    this.#checkOpen(signal);
    const { path, bytes, decode } = sent;
    const call = new ReadCall(this.#client.makeServerStreamRequest(path, asIs, decode, bytes, metadata, { deadline }));
    signal.addEventListener("abort", () => call.cancel(), { once: true });
    return call;
  }

  async #send<Response>(
    { path, bytes, decode }: Outgoing<Response>,
    sessionId: string | undefined,
    deadline: number,
    signal: AbortSignal,
  ): Promise<Response> {
    const metadata = await this.#metadata(sessionId);
    this.#checkOpen(signal);
    return new Promise((resolve, reject) => {
      const onAbort = (): void => call.cancel();
      const onEnd = (error: ServiceError | null, response?: Response): void => {
        signal.removeEventListener("abort", onAbort);
        if (error === null) {
          resolve(response as Response);
        } else {
          reject(error);
        }
      };
      const call = this.#client.makeUnaryRequest(path, asIs, decode, bytes, metadata, { deadline }, onEnd);
      signal.addEventListener("abort", onAbort, { once: true });
    });
  }

  #checkOpen(signal: AbortSignal): void {
    signal.throwIfAborted();
    if (this.#isClosed) {
      throw new Error("use client: it is closed");
    }
  }

  /** What a call carries: the session's key, the current trace context, the token. */
  async #metadata(sessionId: string | undefined): Promise<Metadata> {
    const metadata = new Metadata();
    if (sessionId !== undefined && SESSION_ID.test(sessionId)) {
      metadata.set(SESSION_KEY, sessionId);
    }
    for (const [key, value] of Object.entries(await traceHeaders())) {
      metadata.set(key, value);
    }
    if (this.#settings.token !== undefined) {
      metadata.set("authorization", `Bearer ${await current(this.#settings.token)}`);
    }
    return metadata;
  }
}

/** The sends of one call: counts them, keeps its deadline, waits between them. */
export class Tries {
  readonly #retry: CallRetry;
  readonly #deadlineAtMs: number;
  #tries = 1;
  #waitedMs = 0;

  /** Starts the deadline; Infinity: there is none. */
  constructor(retry: CallRetry, timeoutMs: number) {
    this.#retry = retry;
    this.#deadlineAtMs = performance.now() + timeoutMs;
  }

  /** Wall-clock deadline of the next send, as gRPC takes it; Infinity without one. */
  deadline(): number {
    return Date.now() + this.#remainingMs();
  }

  /** Waits before the next send, or throws the error when there shall be none. The signal ends the wait. */
  async waitOrThrow(error: unknown, signal: AbortSignal): Promise<void> {
    if (!(error instanceof WarmlineError)) {
      throw error;
    }
    const wait = waitMs(this.#retry, error, {
      tries: this.#tries,
      waitedMs: this.#waitedMs,
      remainingMs: this.#remainingMs(),
      jitter: Math.random(),
    });
    if (wait === undefined) {
      throw error;
    }
    try {
      await sleep(wait, undefined, { signal });
    } catch (aborted) {
      throw typed(aborted, signal, error);
    }
    this.#tries += 1;
    this.#waitedMs += wait;
  }

  #remainingMs(): number {
    return Math.max(0, this.#deadlineAtMs - performance.now());
  }
}

/** The error that a caller gets: typed where it is gRPC's, TurnCancelledError where the call was stopped here. */
export function typed(error: unknown, signal: AbortSignal, known: Partial<ErrorFacts> = {}): unknown {
  if (signal.aborted) {
    const { turnId = "", requestId = "", responseId = "", upstreamRequestId, attempts } = known;
    const ids = { turnId, requestId, responseId, upstreamRequestId, attempts };
    return new TurnCancelledError("the call was cancelled by the client", ids, { cause: signal.reason });
  }
  return isServiceError(error) ? fromServiceError(error, known) : error;
}

function check({ target, tls, token, allowPlaintextToken }: ConnectionSettings): void {
  if (token !== undefined && !tls && !allowPlaintextToken && !LOOPBACK.test(target)) {
    throw new TypeError(
      `open client: a token would go to ${target} in plain text; ` +
        "give tls, or allowPlaintextToken where something else encrypts",
    );
  }
}

/** The channel's options; the caller's own come last and win. */
function channelOptions(settings: ConnectionSettings): ChannelOptions {
  const { tls, target } = settings;
  return {
    // gRPC's own resends would run a paid call twice without a word; `CallRetry` decides instead.
    "grpc.enable_retries": 0,
    "grpc.max_receive_message_length": settings.maxMessageBytes,
    "grpc.max_send_message_length": settings.maxMessageBytes,
    "grpc.keepalive_time_ms": settings.keepaliveMs,
    "grpc.keepalive_timeout_ms": settings.keepaliveTimeoutMs,
    // gRPC's 1 s and 120 s would keep a client away from a server that has long restarted.
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 2000,
    "grpc.primary_user_agent": `warmline-typescript/${VERSION}`,
    // gRPC sends even loopback traffic through `http_proxy`.
    ...(LOOPBACK.test(target) && { "grpc.enable_http_proxy": 0 }),
    ...(typeof tls === "object" && tls.serverName !== undefined && { "grpc.ssl_target_name_override": tls.serverName }),
    ...settings.channelOptions,
  };
}

function channelCredentials(tls: boolean | Tls): ChannelCredentials {
  if (tls === false) {
    return credentials.createInsecure();
  }
  const { rootCertificates, privateKey, certificateChain } = tls === true ? {} : tls;
  return credentials.createSsl(pem(rootCertificates), pem(privateKey), pem(certificateChain));
}

function pem(value: Pem | undefined): Buffer | null {
  return value === undefined ? null : Buffer.from(value as Uint8Array);
}

async function current(token: Token): Promise<string> {
  const given = (typeof token === "string" ? token : await token()).trim();
  // Said here, without the token: gRPC would put it into its error.
  if (!/^[\x20-\x7e]*$/.test(given)) {
    throw new TypeError("send token: it has characters that a header cannot carry");
  }
  return given;
}

function asIs(bytes: Buffer): Buffer {
  return bytes;
}
