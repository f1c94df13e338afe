"""The one seam through which sessions are watched.

Spans, metrics, logs, the bundle and the ring of recent attempts are observers. A step is called from the session's
own task: it must be quick, do no I/O and never wait. What it raises is logged once per observer class and dropped: a
trace may lose a line, a call may not.
"""

import logging
from collections.abc import Sequence

from warmline_server.core.errors import WarmlineError
from warmline_server.core.records import AttemptRecord, CallRecord, ConnectRecord, SessionRecord

_log = logging.getLogger(__name__)


class Observer:
    """Does nothing at each step; observers override those they care about."""

    def session_opened(self, session: SessionRecord) -> None:
        """A session was created."""

    def session_closed(self, session: SessionRecord, reason: str) -> None:
        """A session was closed: "caller", "idle", "evicted", "refused" (with the call that made it) or "shutdown"."""

    def slot_changed(self, session: SessionRecord, former: str, state: str) -> None:
        """The preconnect slot went from one state (IDLE, IN_FLIGHT, READY, CLOSED) to another."""

    def call_started(self, call: CallRecord) -> None:
        """A call was admitted."""

    def call_ended(self, call: CallRecord) -> None:
        """A call ended; its record is complete."""

    def call_refused(self, reason: str) -> None:
        """A call was refused before it was admitted."""

    def caller_refused(self, reason: str) -> None:
        """Somebody called who is not known, or may not call; told for every RPC, and logged where it was refused."""

    def connect_started(self, connect: ConnectRecord) -> None:
        """A handshake began: a warm-up when `connect.call` is None."""

    def connect_ended(self, connect: ConnectRecord) -> None:
        """A handshake ended: `connect.error` is None when the socket is open."""

    def socket_closed(self, connect: ConnectRecord, cause: str, code: int | None) -> None:
        """A socket is gone: `cause` is ours ("evicted", …) or "peer"; `code` its close code, None without one."""

    def attempt_started(self, attempt: AttemptRecord) -> None:
        """An attempt's request is about to be sent (over HTTP: before the response's head came)."""

    def attempt_first_event(self, attempt: AttemptRecord) -> None:
        """The first event of an attempt came."""

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        """An attempt ended; its record is complete. Called once per attempt."""

    def attempt_evidence(self, attempt: AttemptRecord) -> None:
        """More became known of an attempt that has ended; its ids are only ever added to."""

    def retry_scheduled(
        self, call: CallRecord, attempt: AttemptRecord | None, failure: WarmlineError, delay_s: float
    ) -> None:
        """An attempt failed, or (None) a handshake that was to carry one; the next follows after `delay_s`."""

    def fell_back(self, session: SessionRecord, call: CallRecord | None, reason: str, *, latched: bool) -> None:
        """HTTP from here: for one attempt, or for the session (`latched`)."""

    def unlatched(self, session: SessionRecord) -> None:
        """The session uses the WebSocket again."""

    def circuit_changed(self, upstream: str, state: str) -> None:
        """The circuit of an upstream went to a state: CLOSED, OPEN or PROBING."""


_STEPS = tuple(name for name in vars(Observer) if not name.startswith("_"))


class Observers(Observer):
    """Passes each step to every observer, in order, and keeps their failures away from the session."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        for step in _STEPS:
            # An observer that leaves a step out costs nothing for it.
            takers = [getattr(o, step) for o in observers if getattr(type(o), step) is not getattr(Observer, step)]
            setattr(self, step, _tee(takers))


def _tee(takers: list) -> object:  # type: ignore[type-arg]
    reported: set[str] = set()

    def step(*args: object, **kwargs: object) -> None:
        for taker in takers:
            try:
                taker(*args, **kwargs)
            except Exception:  # noqa: BLE001 - whatever an observer raises, the call goes on
                if taker.__qualname__ not in reported:
                    reported.add(taker.__qualname__)
                    _log.exception("observer failed; its further failures at this step are not logged")

    return step
