"""Spans on the wire are the same, bit for bit in meaning, as those of the SDK's own encoder."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from observe.spans import EndedSpans, provider_of
from warmline_server.observe.otlp import encode
from warmline_server.observe.tracing import open_tracer

INTS = st.integers(-(2**63), 2**63 - 1)
# UTF-8 has no surrogates, and the SDK drops what it cannot encode.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = st.one_of(TEXTS, st.booleans(), INTS, st.floats(allow_nan=False), st.lists(TEXTS, max_size=3), st.lists(INTS))
FOUND = st.dictionaries(st.text("abc.é", min_size=1, max_size=130), VALUES, max_size=8)
CONTEXTS = st.builds(
    SpanContext,
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.booleans(),
    st.just(TraceFlags(TraceFlags.SAMPLED)),
    st.sampled_from([None, TraceState([("vendor", "x1"), ("other", "y2")])]),
)
TIMES = st.integers(1, 2**63)


@st.composite
def _described(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "name": draw(TEXTS),
        "kind": draw(st.sampled_from(SpanKind)),
        "parent": draw(st.none() | CONTEXTS),
        "attributes": draw(FOUND),
        "links": [Link(context, draw(FOUND)) for context in draw(st.lists(CONTEXTS, max_size=2))],
        "events": draw(st.lists(st.tuples(TEXTS, FOUND, TIMES), max_size=2)),
        "status": draw(st.sampled_from([None, Status(StatusCode.OK), Status(StatusCode.ERROR, "UPSTREAM_FAILED")])),
        "times": (draw(TIMES), draw(TIMES)),
    }


def _end(provider: TracerProvider, span: Mapping[str, Any]) -> None:
    parent = span["parent"]
    context = set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
    begun, ended = span["times"]
    live = open_tracer(provider).start_span(
        span["name"], context, span["kind"], span["attributes"], span["links"], start_time=begun
    )
    for name, found, at in span["events"]:
        live.add_event(name, found, at)
    if span["status"] is not None:
        live.set_status(span["status"])
    live.end(ended)


def _spans(*described: Mapping[str, Any], limits: SpanLimits | None = None) -> list[ReadableSpan]:
    ended = EndedSpans()
    provider = provider_of(ended, limits)
    for span in described:
        _end(provider, span)
    return ended.spans


@given(st.lists(_described(), min_size=1, max_size=4))
def test_message_is_that_of_the_sdk(described: list[dict[str, Any]]) -> None:
    spans = _spans(*described)
    assert encode(spans) == encode_spans(spans)


@pytest.mark.parametrize("length", [0, 1, 124, 125, 126, 127, 128, 16_379, 16_383, 16_384, 70_000])
def test_text_of_any_length_is_that_of_the_sdk(length: int) -> None:
    """Where one of its four lengths takes a byte more."""
    ended = EndedSpans()
    provider = provider_of(ended)
    for _ in range(2):  # the first is the SDK's own
        open_tracer(provider).start_span("turn", attributes={"name": "x" * length, "row": ("y" * length,)}).end()

    assert encode(ended.spans) == encode_spans(ended.spans)


def test_text_that_utf_8_cannot_say_costs_neither_its_span_nor_the_others() -> None:
    ended = EndedSpans()
    provider = provider_of(ended)
    for text in ("first", "a\ud800b", "last"):
        open_tracer(provider).start_span("turn", attributes={"name": text}).end()

    [resource] = encode(ended.spans).resource_spans
    [scope] = resource.scope_spans
    assert [span.attributes[0].value.string_value for span in scope.spans] == ["first", "a?b", "last"]


@given(_described())
def test_what_the_limits_dropped_is_counted(described: dict[str, Any]) -> None:
    spans = _spans(described, described, limits=SpanLimits(1, 1, 1, 1, 1, max_attribute_length=3))
    assert encode(spans) == encode_spans(spans)


def test_spans_of_several_providers_keep_their_resources() -> None:
    ended = EndedSpans()
    for name in ("one", "two"):
        provider = TracerProvider(resource=Resource({"service.name": name}), shutdown_on_exit=False)
        provider.add_span_processor(ended)
        for _ in range(2):
            open_tracer(provider).start_span("turn", attributes={"name": name}).end()

    assert encode(ended.spans) == encode_spans(ended.spans)
    assert len(encode(ended.spans).resource_spans) == 2
