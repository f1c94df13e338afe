//! The trace context of the span that is current, where the feature `opentelemetry` is on; else there is none.

use std::future::Future;

use http::HeaderMap;

/// The context as it was where a call was made; its task is not the caller's.
#[derive(Clone)]
pub(crate) struct TraceContext(#[cfg(feature = "opentelemetry")] opentelemetry::Context);

#[cfg(not(feature = "opentelemetry"))]
impl TraceContext {
    pub(crate) fn current() -> Self {
        Self()
    }

    pub(crate) fn scope<F: Future>(self, future: F) -> F {
        future
    }
}

/// Writes the current context into what a call carries.
#[cfg(not(feature = "opentelemetry"))]
pub(crate) fn inject(_: &mut HeaderMap) {}

#[cfg(feature = "opentelemetry")]
impl TraceContext {
    pub(crate) fn current() -> Self {
        Self(opentelemetry::Context::current())
    }

    /// Runs a future in the context.
    pub(crate) fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        opentelemetry::context::FutureExt::with_context(future, self.0)
    }
}

/// Writes the current context into what a call carries. The global propagator does nothing until the program sets one;
/// a span that is current is told all the same.
#[cfg(feature = "opentelemetry")]
pub(crate) fn inject(headers: &mut HeaderMap) {
    use opentelemetry::trace::TraceContextExt;

    let context = opentelemetry::Context::current();
    let mut carried = Carried(headers);
    let span = context.span();
    let span = span.span_context();
    if span.is_valid() {
        let (trace_id, span_id, flags) = (span.trace_id(), span.span_id(), span.trace_flags());
        carried.put("traceparent", &format!("00-{trace_id}-{span_id}-{:02x}", flags.to_u8() & 1));
        if !span.trace_state().header().is_empty() {
            carried.put("tracestate", &span.trace_state().header());
        }
    }
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut carried));
}

#[cfg(feature = "opentelemetry")]
struct Carried<'a>(&'a mut HeaderMap);

#[cfg(feature = "opentelemetry")]
impl Carried<'_> {
    /// What a header cannot carry is left out: a call must not fail for its trace.
    fn put(&mut self, key: &str, value: &str) {
        if let (Ok(key), Ok(value)) = (http::HeaderName::try_from(key), http::HeaderValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}

#[cfg(feature = "opentelemetry")]
impl opentelemetry::propagation::Injector for Carried<'_> {
    fn set(&mut self, key: &str, value: String) {
        self.put(key, &value);
    }
}
