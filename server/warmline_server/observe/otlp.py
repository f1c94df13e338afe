"""Export over OTLP: the SDK's exporters, but for spans, which are encoded in two fifths of the time that the SDK takes.

Encoding goes on in the exporter's thread and takes the interpreter from the event loop meanwhile, so its cost is
latency too. A span's message is protobuf's, followed by the attributes, which are most of it, put together by hand: a
test holds them to the SDK's own bytes.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from types import MappingProxyType

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, SpanFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage
from opentelemetry.proto.trace.v1.trace_pb2 import Status as StatusMessage
from opentelemetry.sdk.environment_variables import (
    OTEL_EXPORTER_OTLP_METRICS_PROTOCOL,
    OTEL_EXPORTER_OTLP_PROTOCOL,
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL,
)
from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode
from opentelemetry.util.types import AnyValue as Value
from opentelemetry.util.types import Attributes

from warmline_server.core.protobuf_wire import FIXED64, LENGTH, VARINT, sized, tag, varint

_SPAN = tag(ScopeSpans.SPANS_FIELD_NUMBER, LENGTH)
_ATTRIBUTE = tag(SpanMessage.ATTRIBUTES_FIELD_NUMBER, LENGTH)
_KEY, _VALUE = tag(KeyValue.KEY_FIELD_NUMBER, LENGTH), tag(KeyValue.VALUE_FIELD_NUMBER, LENGTH)
_TEXT, _INT = tag(AnyValue.STRING_VALUE_FIELD_NUMBER, LENGTH), tag(AnyValue.INT_VALUE_FIELD_NUMBER, VARINT)
_BOOL, _DOUBLE = tag(AnyValue.BOOL_VALUE_FIELD_NUMBER, VARINT), tag(AnyValue.DOUBLE_VALUE_FIELD_NUMBER, FIXED64)
_ARRAY, _ITEM = tag(AnyValue.ARRAY_VALUE_FIELD_NUMBER, LENGTH), tag(ArrayValue.VALUES_FIELD_NUMBER, LENGTH)
_TRUE, _FALSE = sized(_BOOL + varint(1)), sized(_BOOL + varint(0))
# What stands before a text so long that each of its lengths is one byte, as nearly all are.
_SHORT = [sized(_TEXT + varint(length) + b" " * length)[:3] for length in range(126)]
# Names behind their tag and length: they are our own, and few.
_keys: dict[str, bytes] = {}
_double = struct.Struct("<d").pack
_KINDS = {kind: SpanMessage.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_CODES = {code: StatusMessage.StatusCode.Value(f"STATUS_CODE_{code.name}") for code in StatusCode}
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class TelemetryError(Exception):
    """Telemetry cannot be set up as it was asked for."""


def span_exporter() -> SpanExporter:
    """As the standard variables have it. Raises: TelemetryError."""
    _check_protocol(OTEL_EXPORTER_OTLP_TRACES_PROTOCOL)
    return _SpanExporter()


def metric_exporter() -> MetricExporter:
    """As the standard variables have it. Raises: TelemetryError."""
    _check_protocol(OTEL_EXPORTER_OTLP_METRICS_PROTOCOL)
    return OTLPMetricExporter()


def _check_protocol(variable: str) -> None:
    protocol = os.environ.get(variable) or os.environ.get(OTEL_EXPORTER_OTLP_PROTOCOL) or "grpc"
    if protocol != "grpc":
        raise TelemetryError(f"OTLP over {protocol!r} is asked for by OTEL_* variables: there is grpc only")


class _SpanExporter(OTLPSpanExporter):
    def _translate_data(self, data: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
        return encode(data)


def encode(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """The message of at least one span, equal to the one that the SDK's exporter makes."""
    first = spans[0]
    scope = first.instrumentation_scope
    if any(span.instrumentation_scope is not scope for span in spans):
        return encode_spans(spans)  # of more tracers than ours
    request = encode_spans((first,))
    request.resource_spans[0].scope_spans[0].MergeFromString(b"".join(map(_span, spans[1:])))
    return request


def _span(span: ReadableSpan) -> bytes:
    """A span among those of its scope."""
    context, parent, status = span.context, span.parent, span.status
    assert context is not None, "a span that ended has its ids"
    head = SpanMessage(
        trace_id=_trace_id(context),
        span_id=_span_id(context),
        trace_state=context.trace_state.to_header(),
        parent_span_id=_span_id(parent) if parent is not None else b"",
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time or 0,
        end_time_unix_nano=span.end_time or 0,
        events=map(_event, span.events),
        links=map(_link, span.links),
        status=StatusMessage(code=_CODES[status.status_code], message=status.description or ""),
        dropped_attributes_count=span.dropped_attributes,
        dropped_events_count=span.dropped_events,
        dropped_links_count=span.dropped_links,
        flags=_flags(parent),
    )
    body = [head.SerializeToString()]
    _add_attributes(body, _ATTRIBUTE, span.attributes)
    return _SPAN + sized(b"".join(body))


def _event(event: Event) -> SpanMessage.Event:
    return SpanMessage.Event(
        name=event.name,
        time_unix_nano=event.timestamp,
        attributes=_attributes(event.attributes),
        dropped_attributes_count=event.dropped_attributes,
    )


def _link(link: Link) -> SpanMessage.Link:
    return SpanMessage.Link(
        trace_id=_trace_id(link.context),
        span_id=_span_id(link.context),
        attributes=_attributes(link.attributes),
        dropped_attributes_count=link.dropped_attributes,
        flags=_flags(link.context),
    )


def _attributes(found: Attributes) -> Iterable[KeyValue]:
    parts: list[bytes] = []
    _add_attributes(parts, _ATTRIBUTE, found)
    return SpanMessage.FromString(b"".join(parts)).attributes


def _add_attributes(parts: list[bytes], tag_: bytes, found: Attributes) -> None:
    """Each as a KeyValue behind its tag; spelled out, as all the time goes here."""
    if not found:
        return
    # The SDK's mapping makes a plain dictionary of itself; to walk it would take as long as the encoding.
    plain = found.copy() if isinstance(found, MappingProxyType | BoundedAttributes) else found
    for name, value in plain.items():
        key = _keys.get(name) or _new_key(name)
        if isinstance(value, str):
            text = _text(value)
            if len(text) < len(_SHORT):
                parts += (tag_, varint(len(key) + len(text) + 3), key, _SHORT[len(text)], text)
                continue
            content = sized(_TEXT + sized(text))
        else:
            content = _value(value)
        parts += (tag_, varint(len(key) + len(content)), key, content)


def _new_key(name: str) -> bytes:
    key = _keys[name] = _KEY + sized(name.encode()) + _VALUE
    return key


def _text(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:  # one that cannot be said may not cost the batch
        return value.encode(errors="replace")


def _value(value: Value) -> bytes:
    """An AnyValue, behind its length."""
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return sized(_INT + varint(value & 0xFFFF_FFFF_FFFF_FFFF))
    if isinstance(value, float):
        return sized(_DOUBLE + _double(value))
    if isinstance(value, str):
        return sized(_TEXT + sized(_text(value)))
    assert isinstance(value, Sequence), "an attribute of ours is a text, a number, a truth or a row of them"
    return sized(_ARRAY + sized(b"".join(_ITEM + _value(item) for item in value)))


def _trace_id(context: SpanContext) -> bytes:
    return context.trace_id.to_bytes(16, "big")


def _span_id(context: SpanContext) -> bytes:
    return context.span_id.to_bytes(8, "big")


def _flags(context: SpanContext | None) -> int:
    return _REMOTE if context is not None and context.is_remote else _LOCAL
