import assert from "node:assert/strict";
import { test } from "node:test";

import { context, propagation, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { BasicTracerProvider } from "@opentelemetry/sdk-trace-base";

import { ADMITTED, COMPLETED, FakeServer, message } from "./fake_server.js";

async function traceparents(make: (server: FakeServer) => Promise<unknown>): Promise<unknown[]> {
  const seen: unknown[] = [];
  await using server = await FakeServer.start({
    streamTurn: (call) => {
      seen.push(...call.metadata.get("traceparent"));
      call.write(message(1, ADMITTED, COMPLETED));
      call.end();
    },
  });
  await make(server);
  return seen;
}

test("a call carries the span that is current where the turn is made, and none where none is", async () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  propagation.setGlobalPropagator(new W3CTraceContextPropagator());
  const span = new BasicTracerProvider().getTracer("test").startSpan("work");
  const { traceId, spanId } = span.spanContext();

  const seen = await traceparents(async (server) => {
    const turn = await context.with(trace.setSpan(context.active(), span), () => server.turn());
    await turn.result();
    await (await server.turn()).result();
  });

  assert.deepEqual(seen, [`00-${traceId}-${spanId}-01`]);
});
