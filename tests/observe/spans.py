"""Spans, kept and waited for."""

import asyncio
from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider


class EndedSpans(SpanProcessor):
    """Keeps every span that ends on this loop; `wait(n)` returns once there are `n`. `open`: names of the others."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.open: list[str] = []
        self._more = asyncio.Event()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.open.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self.open.remove(span.name)
        self.spans.append(span)
        self._more.set()

    async def wait(self, count: int) -> list[ReadableSpan]:
        await self.until(lambda: len(self.spans) >= count)
        return self.spans

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns once `condition` holds; it is asked after each span's end."""
        async with asyncio.timeout(10):
            while not condition():
                self._more.clear()
                await self._more.wait()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]


def provider_of(spans: SpanProcessor, limits: SpanLimits | None = None) -> TracerProvider:
    """A real provider that passes ended spans to `spans` at once. Args: `limits` None: the standard ones."""
    provider = TracerProvider(shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(spans)
    return provider


def attribute(span: ReadableSpan, name: str) -> object:
    """The value of an attribute; None when the span has none of that name."""
    return (span.attributes or {}).get(name)
