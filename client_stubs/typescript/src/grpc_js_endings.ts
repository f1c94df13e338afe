/**
 * Delivers every message that came before a failing status.
 *
 * grpc-js throws away messages that have arrived and were not read yet as soon as a status other than OK comes
 * (grpc/grpc-node#2764; measured with 1.14.7: of 20 messages and an ABORTED, a reader that pauses gets 17). What was
 * delivered counts in this contract, so a call of ours is first told OK, which has grpc-js hand out what it holds, and
 * gets its own status after that. Calls of other services are left alone.
 */

import { status } from "@grpc/grpc-js";
import { Http2SubchannelCall } from "@grpc/grpc-js/build/src/subchannel-call.js";

/** What is used of the class; grpc-js calls these private. */
interface Internals {
  readonly http2Stream: { readonly sentHeaders?: Readonly<Record<string, unknown>> };
  finalStatus: { code: status } | null;
  handleTrailers(headers: Readonly<Record<string, unknown>>): void;
  outputStatus(): void;
}

const internals = Http2SubchannelCall.prototype as unknown as Internals;
const { handleTrailers, outputStatus } = internals;
const held = new WeakMap<Internals, status>();

internals.handleTrailers = function (headers) {
  const code = Number(headers["grpc-status"]);
  if (!(code > 0) || !String(this.http2Stream.sentHeaders?.[":path"]).startsWith("/warmline.v1.")) {
    handleTrailers.call(this, headers);
    return;
  }
  held.set(this, code);
  handleTrailers.call(this, { ...headers, "grpc-status": String(status.OK) });
};

internals.outputStatus = function () {
  const code = held.get(this);
  if (code !== undefined && this.finalStatus?.code === status.OK) {
    this.finalStatus = { ...this.finalStatus, code };
  }
  outputStatus.call(this);
};
