"""What a call is asked to do, and where its events go."""

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Protocol

import msgspec

from warmline_server.core import retry
from warmline_server.core.events import Emission


class OnBusy(Enum):
    """What a call does when its lane has a running call."""

    REJECT = auto()
    WAIT = auto()
    PREEMPT = auto()


class CallSpec(msgspec.Struct, frozen=True):
    """What a caller asked for.

    `settings`: body fields as JSON, the session's defaults merged in; `items`: the input, oldest first; `append_at`:
    the history position of an APPEND call, None for FULL; `deadline_at_s`: monotonic, None without one;
    `max_duration_s`: at most the operator's.
    """

    lane: str
    turn_id: str
    request_id: str
    settings: Mapping[str, bytes]
    items: tuple[bytes, ...]
    append_at: int | None
    turn_metadata: bytes
    retry: retry.RetryMode
    on_busy: OnBusy
    deadline_at_s: float | None
    max_duration_s: float
    with_payload: bool
    session_created: bool = False


class CallerGone(Exception):
    """The caller no longer reads: its channel or its call is gone."""


class Sink(Protocol):
    """The one writer to a caller's stream. `sequence` is the number of the last event that was written."""

    sequence: int

    async def send(self, emissions: Sequence[Emission]) -> None:
        """Writes events in one message; returns when the stream takes more.

        Raises: CallerGone. Cancel: the message may be half written; the stream takes only a status then.
        """
