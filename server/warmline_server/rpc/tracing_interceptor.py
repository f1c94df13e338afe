"""The SERVER span of every RPC of ours, right at each of its endings, and the metric of its duration.

Written here because the stock asyncio instrumentation reports OK for a client's cancel, a passed deadline and a handler
that raised, and cannot wrap a coroutine that streams through `context.write` (measured, contrib 0.66b2).
"""

import asyncio
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import grpc
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.propagate import extract, get_global_textmap
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from warmline_server.callers import ANYBODY
from warmline_server.observe import names
from warmline_server.observe.attributes import Attributes
from warmline_server.observe.metric_table import RPC_DURATION
from warmline_server.observe.metrics import histogram, open_meter
from warmline_server.observe.tracing import carrier_of, open_tracer, rpc_span
from warmline_server.rpc.callers import current_caller
from warmline_server.rpc.handlers import Behaviour, wrapped
from warmline_server.session.call_spec import CallerGone

# Probes and reflection call without end and tell nothing.
UNTRACED = ("/grpc.",)

# Source: core conventions 1.44.0, gRPC: what a server span counts as its own error.
SERVER_ERRORS = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
# The client's own deadline passes first, and its cancel may be here before ours passes: by the time that the request
# took to come, which a deadline is not shortened by on the wire.
EARLY_S = 0.05

_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def current_rpc_trace_carrier() -> Mapping[str, str]:
    """`traceparent` and `tracestate` of the RPC that this task serves; empty when there is none."""
    return carrier_of(rpc_span.get())


class TracingInterceptor(grpc.aio.ServerInterceptor):
    """Wraps coroutine handlers. Goes first, so that every refusal has its span too."""

    def __init__(self, tracer_provider: TracerProvider, meter_provider: MeterProvider) -> None:
        self._tracer = open_tracer(tracer_provider)
        self._duration = histogram(open_meter(meter_provider), RPC_DURATION)
        self._propagated = get_global_textmap().fields

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        method: str = details.method
        if handler is None or method.startswith(UNTRACED):
            return handler
        carrier = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}
        return wrapped(handler, lambda behaviour: self._wrap(behaviour, method.lstrip("/"), carrier))

    def _wrap(self, behaviour: Behaviour, method: str, carrier: Mapping[str, str]) -> Behaviour:
        async def traced(request: Any, context: Any) -> Any:
            started_at_s, remaining_s = time.monotonic(), context.time_remaining()
            span = self._start(method, carrier, context.peer())
            token = rpc_span.set(span)
            code = grpc.StatusCode.UNKNOWN  # what a client is told when a handler raises
            try:
                answer = await behaviour(request, context)
                code = _set_code(context)
            except asyncio.CancelledError:
                code = _why_cancelled(started_at_s, remaining_s)
                raise
            except grpc.aio.AbortError:
                code = _set_code(context)
                raise
            except (CallerGone, grpc.aio.BaseError) as gone:
                # A write to a stream that the client has left. As a cancel it ends without a traceback in grpc's log.
                code = _why_cancelled(started_at_s, remaining_s)
                raise asyncio.CancelledError from gone
            finally:
                rpc_span.reset(token)
                self._end(span, method, code, time.monotonic() - started_at_s)
            return answer

        return traced

    def _start(self, method: str, carrier: Mapping[str, str], peer: str) -> Span:
        return self._tracer.start_span(
            method,
            # A caller that propagates nothing costs no look at each of its headers.
            context=extract(carrier) if self._propagated & carrier.keys() else Context(),
            kind=SpanKind.SERVER,
            attributes={names.RPC_SYSTEM: "grpc", names.RPC_METHOD: method} | _peer(peer),
            record_exception=False,
            set_status_on_exception=False,
        )

    def _end(self, span: Span, method: str, code: grpc.StatusCode, duration_s: float) -> None:
        found: Attributes = {names.RPC_STATUS: code.name}
        if code is not grpc.StatusCode.OK:
            found[names.ERROR_TYPE] = code.name
        span.set_attributes(_caller() | found)
        if code in SERVER_ERRORS:
            span.set_status(Status(StatusCode.ERROR, code.name))
        span.end()
        self._duration.record(duration_s, {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: method} | found)


def _set_code(context: Any) -> grpc.StatusCode:
    """The status that the handler set; OK when it set none."""
    code = context.code()
    return code if isinstance(code, grpc.StatusCode) else _CODES.get(code or 0, grpc.StatusCode.UNKNOWN)


def _why_cancelled(started_at_s: float, remaining_s: float | None) -> grpc.StatusCode:
    """By our own clock: asked afterwards, grpc does not tell a passed deadline from a client's cancel (measured)."""
    if remaining_s is not None and time.monotonic() - started_at_s >= remaining_s - EARLY_S:
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return grpc.StatusCode.CANCELLED


def _caller() -> Attributes:
    """Who called, where that is known; it may become known while the handler runs."""
    caller = current_caller.get(ANYBODY)
    known = {names.TENANT: caller.tenant, names.CALLER: caller.name}
    return {name: value for name, value in known.items() if value}


@lru_cache  # of a connection, whose calls are many
def _peer(peer: str) -> Attributes:
    """Address and port of `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`; nothing for other forms."""
    family, _, place = peer.partition(":")
    if family not in ("ipv4", "ipv6"):
        return {}
    address, _, port = unquote(place).rpartition(":")
    return {names.PEER_ADDRESS: address.strip("[]"), names.PEER_PORT: int(port)} if port.isdigit() else {}
