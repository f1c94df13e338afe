"""What the upstream does wrong on demand: a turn's text names the fault, and its first request meets it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warmline_simulator import Close, Drop, Reply, RequestRecord, Script, Stall, ev, read
from warmline_simulator.script import Match, Step

HALF: Sequence[Step] = ev.text_response("half of a sentence that never", response_id=None)[:6]


@dataclass(frozen=True, slots=True)
class Fault:
    """`reply` are fields of the simulator's reply. `reasons`: how a call may end that meets it; blank: it completes."""

    reply: Mapping[str, Any]
    reasons: frozenset[str] = frozenset({""})


def _steps(*steps: Step, reasons: Sequence[str] = ("",)) -> Fault:
    return Fault({"events": steps}, frozenset(reasons))


# After output a call that is sent BEFORE_OUTPUT, as these are, is not sent again: its caller must decide.
FAULTS: Mapping[str, Fault] = {
    "dropped": _steps(Drop()),
    "dropped-midway": _steps(*HALF, Drop(), reasons=["UPSTREAM_STREAM_LOST"]),
    "closed": _steps(Close(1011)),
    "stalled": _steps(ev.created(), Stall()),
    "status-503": Fault({"status": 503}),
    "status-500": Fault({"status": 500}),
    "rate-limited": Fault({"status": 429, "headers": {"retry-after": "1"}}),
    "failed": _steps(ev.created(), ev.failed("server_is_overloaded", "busy")),
}


def text_of(record: RequestRecord) -> str:
    """The text of a request's last item; blank when it is none of a user's."""
    given = record.body.get("input")
    last = given[-1] if isinstance(given, list) and given else {}
    return read.text_of(last.get("content")) if isinstance(last, dict) else ""


def key_of(record: RequestRecord) -> str:
    """The first word of that text: the turn's key."""
    return text_of(record).partition(" ")[0]


def script() -> Script:
    """Answers like a model, but for the first request of a turn whose text is `KEY fault:NAME …`."""
    met: set[str] = set()

    def meets(name: str) -> Match:
        def match(record: RequestRecord) -> bool:
            text = text_of(record)
            if not text.partition(" ")[2].startswith(f"fault:{name} "):
                return False
            key = text.partition(" ")[0]
            is_first = key not in met
            met.add(key)
            return is_first

        return match

    replies = [Reply(match=meets(name), times=None, **fault.reply) for name, fault in FAULTS.items()]
    return Script(creates=replies, posts=replies)
