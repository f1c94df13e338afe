"""Ended spans, kept and waited for."""

import asyncio

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider


class EndedSpans(SpanProcessor):
    """Keeps every span that ends on this loop; `wait(n)` returns once there are `n`."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self._more = asyncio.Event()

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)
        self._more.set()

    async def wait(self, count: int) -> list[ReadableSpan]:
        async with asyncio.timeout(10):
            while len(self.spans) < count:
                self._more.clear()
                await self._more.wait()
        return self.spans

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


def provider_of(spans: SpanProcessor) -> TracerProvider:
    """A real provider that passes ended spans to `spans` at once."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(spans)
    return provider


def attribute(span: ReadableSpan, name: str) -> object:
    """The value of an attribute; None when the span has none of that name."""
    return (span.attributes or {}).get(name)
