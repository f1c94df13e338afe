/** The current trace context, where OpenTelemetry's API is installed. */

type Api = typeof import("@opentelemetry/api");

let api: Promise<Api | undefined> | undefined;

/** Looks for the API once; undefined: it is not installed, and no trace context is sent. */
export function loadTracing(): Promise<Api | undefined> {
  api ??= import("@opentelemetry/api").catch(() => undefined);
  return api;
}

/** Headers that carry the current context, as the installed propagator writes them; none without one. */
export async function traceHeaders(): Promise<Readonly<Record<string, string>>> {
  const found = await loadTracing();
  const headers: Record<string, string> = {};
  found?.propagation.inject(found.context.active(), headers);
  return headers;
}
