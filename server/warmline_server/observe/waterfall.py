"""A turn as a waterfall: what ran when, beneath what, and how it ended. Pure; drawn by `waterfall_text` and `_html`."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from warmline_server.observe.bundle.format import Connect
from warmline_server.observe.bundle.state import Call, InferenceCall, State


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing that took time. Times are Unix nanoseconds; `ended_ns` None: it ran when this was recorded.

    `first_ns` is the first event of an attempt. `depth` 0 is a call, 1 what ran beneath it. `facts` in the order in
    which they are shown.
    """

    kind: str
    name: str
    started_ns: int
    ended_ns: int | None
    outcome: str
    depth: int
    first_ns: int | None = None
    failed: bool = False
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class TurnView:
    """A turn's bars, in the order in which they started, each call's own beneath it."""

    turn_id: str
    lane: str
    bars: list[Bar] = field(default_factory=list)

    @property
    def started_ns(self) -> int:
        return min(bar.started_ns for bar in self.bars)

    @property
    def ended_ns(self) -> int:
        """The last moment that is known."""
        return max(bar.ended_ns or bar.first_ns or bar.started_ns for bar in self.bars)


def shown(pairs: Iterable[tuple[str, object]]) -> tuple[tuple[str, str], ...]:
    """Facts as texts, without those that are blank or unknown."""
    return tuple((name, visible(str(value))) for name, value in pairs if value not in (None, "", False))


def visible(text: str) -> str:
    """The text with its control characters as escapes: ids come from elsewhere, and a terminal obeys some of them."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def turns_of(state: State, turn_id: str = "") -> list[TurnView]:
    """The turns of a replayed bundle, oldest first. `turn_id` blank: all of them."""
    views: dict[tuple[str, str], TurnView] = {}
    for call in state.calls.values():
        started = call.started
        if turn_id in ("", started.turn_id):
            key = (started.lane, started.turn_id)
            view = views.setdefault(key, TurnView(started.turn_id, started.lane))
            view.bars.append(_call_bar(call))
            view.bars.extend(sorted(_beneath(state, started.request_id), key=lambda bar: bar.started_ns))
    return list(views.values())


def _beneath(state: State, request_id: str) -> list[Bar]:
    attempts = [call for call in state.inference_calls.values() if call.facts and call.facts.request_id == request_id]
    adopted = {call.facts.connection_id for call in attempts if call.facts and call.facts.slot_outcome != "reused"}
    connects = [c for c in state.connects.values() if c.request_id == request_id or c.connection_id in adopted]
    return [_connect_bar(c) for c in connects] + [_attempt_bar(call) for call in attempts]


def _call_bar(call: Call) -> Bar:
    started, ended = call.started, call.ended
    return Bar(
        "call",
        f"call {started.request_id}",
        started.started_unix_ns,
        ended.ended_unix_ns if ended is not None else None,
        ended.outcome if ended is not None else "running",
        0,
        failed=ended is not None and ended.outcome == "failed",
        facts=shown([("reason", ended.reason if ended is not None else ""), ("trace_id", started.trace_id)]),
    )


def _connect_bar(connect: Connect) -> Bar:
    warmed = not connect.request_id
    return Bar(
        "connect",
        "preconnect" if warmed else "connect",
        connect.started_unix_ns,
        connect.ended_unix_ns,
        "failed" if connect.reason else "abandoned" if connect.abandoned else "open",
        1,
        failed=bool(connect.reason),
        facts=shown(
            [
                ("reason", connect.reason),
                ("http_status", connect.status),
                ("upstream_handshake_request_id", connect.upstream_handshake_request_id),
                ("connection_id", connect.connection_id),
            ]
        ),
    )


def _attempt_bar(call: InferenceCall) -> Bar:
    facts, end = call.facts, call.end_facts
    assert facts is not None, "only attempts with facts are shown"
    usage = call.usage
    return Bar(
        "attempt",
        f"attempt {facts.attempt}",
        facts.started_unix_ns,
        end.ended_unix_ns if end is not None else None,
        call.execution.status.value,
        1,
        first_ns=end.first_event_unix_ns if end is not None else None,
        failed=call.execution.status.value == "failed",
        facts=shown(
            [
                ("reason", call.reason),
                ("response_id", call.response_id),
                ("upstream_request_id", call.upstream_request_id or _unknown(facts.transport)),
                ("transport", facts.transport),
                ("slot", facts.slot_outcome),
                ("request", "incremental" if facts.incremental else f"full ({facts.full_reason})"),
                ("http_status", end.http_status if end is not None else None),
                ("events", end.events if end is not None else None),
                ("tokens", f"{usage.input_tokens} in, {usage.output_tokens} out" if usage is not None else ""),
                ("model", call.model),
                ("attempt_id", call.inference_call_id),
                ("span_id", facts.span_id),
            ]
        ),
    )


def _unknown(transport: str) -> str:
    """Absent means unknown, and on a WebSocket it always is."""
    return "unknown (WebSocket)" if transport == "websocket" else ""
