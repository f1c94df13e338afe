"""Where an exchange is when a fault meets it, and the answer that is cut there."""

from enum import Enum
from typing import Any, Literal

from warmline_simulator import ev

TransportName = Literal["ws", "http"]
TRANSPORTS: tuple[TransportName, ...] = ("ws", "http")


class Phase(Enum):
    """In the order in which a turn passes them; the value is the column's head."""

    CONNECT = "connect"
    """The connection is asked for: nothing was sent on it."""
    HANDSHAKE = "handshake"
    """WebSocket: the upgrade is upstream and not answered. HTTP: the POST is, and no head of an answer has come."""
    BEFORE_CREATED = "before created"
    """The request is upstream; its answer has begun (HTTP: its head has come) and has told nothing."""
    MID_DELTA = "mid-delta"
    """Two pieces of the text were delivered."""
    AFTER_ITEM = "after an item"
    """One item is done, another one will follow."""
    AT_TERMINAL = "at the terminal"
    """All items are done, the terminal event is next."""
    IDLE = "idle"
    """Between two turns: the former one's connection is kept, nothing is asked for."""


STREAMING = (Phase.BEFORE_CREATED, Phase.MID_DELTA, Phase.AFTER_ITEM, Phase.AT_TERMINAL)
HAS_OUTPUT = (Phase.MID_DELTA, Phase.AFTER_ITEM, Phase.AT_TERMINAL)

RESPONSE_ID = "resp-faulted"
FIRST, SECOND = ev.message("one two three four", id="msg-first"), ev.message("five six", id="msg-second")
CALL = ev.function_call("look", call_id="call-first", id="fc-first")
WHOLE_TEXT = "one two three fourfive six"


def answer(first: dict[str, Any] = FIRST) -> list[dict[str, Any]]:
    """The whole answer of two items."""
    whole: list[dict[str, Any]] = ev.response_of(first, SECOND)
    for event in whole:
        if "response" in event:
            event["response"]["id"] = RESPONSE_ID
    return whole


def place(events: list[dict[str, Any]], phase: Phase) -> int:
    """The index of the first event that comes after a phase of STREAMING."""
    kinds = [event["type"] for event in events]
    match phase:
        case Phase.BEFORE_CREATED:
            return 0
        case Phase.MID_DELTA:
            deltas = [index for index, kind in enumerate(kinds) if kind.endswith(".delta")]
            return deltas[1] + 1
        case Phase.AFTER_ITEM:
            return kinds.index("response.output_item.done") + 1
        case Phase.AT_TERMINAL:
            return len(kinds) - 1
    raise AssertionError(f"no answer is under way in the phase {phase.value!r}")
