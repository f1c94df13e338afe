package io.warmline;

import io.grpc.Metadata;
import io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator;
import io.opentelemetry.context.Context;

/** Tells the server of the span that is current. */
interface TraceContext {
  /** Writes {@code traceparent} where a span is current. */
  void inject(Metadata headers);

  /** The one that writes, where OpenTelemetry's API is on the class path; else one that does nothing. */
  static TraceContext find() {
    try {
      Class.forName("io.opentelemetry.api.trace.propagation.W3CTraceContextPropagator");
    } catch (ClassNotFoundException | LinkageError absent) {
      return headers -> {};
    }
    return new OpenTelemetry();
  }

  /** Loaded only where the API is there. */
  final class OpenTelemetry implements TraceContext {
    @Override
    public void inject(Metadata headers) {
      // Not the global propagator: asking for it settles the program's global OpenTelemetry for good.
      W3CTraceContextPropagator.getInstance()
          .inject(
              Context.current(),
              headers,
              (carrier, name, value) -> carrier.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value));
    }
  }
}
