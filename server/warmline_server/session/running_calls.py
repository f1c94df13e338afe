"""The calls of a session: those that run, and the request ids of those that have completed."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from warmline_server.core.errors import CallerError, Reason, WarmlineError

if TYPE_CHECKING:
    from warmline_server.session.call import Call

# Calls whose request id is remembered as completed, so that a repetition is recognised. A bound, not a promise.
REMEMBERED_REQUESTS = 256


class RunningCalls:
    """Calls by request id. True while one runs or waits."""

    def __init__(self) -> None:
        self._running: dict[str, Call] = {}
        self._completed: OrderedDict[str, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._running)

    def refuse_used(self, request_id: str) -> None:
        """Raises: CallerError when a call of this id runs, or has completed."""
        state = (
            "is running" if request_id in self._running else "has completed" if request_id in self._completed else ""
        )
        if state:
            raise CallerError(
                Reason.REQUEST_ID_REUSED, f"a call of request_id {request_id!r} {state}", field="request_id"
            )

    @contextmanager
    def running(self, call: "Call") -> Iterator[None]:
        """The call is one of those that run, until the block ends."""
        request_id = call.spec.request_id
        self._running[request_id] = call
        try:
            yield
        finally:
            del self._running[request_id]
            if call.completed:
                self._completed[request_id] = None
            if len(self._completed) > REMEMBERED_REQUESTS:
                self._completed.popitem(last=False)

    def stop(self, error: WarmlineError, *, request_id: str = "", turn_id: str = "") -> list[str]:
        """Ends the calls that match with `error`; blank matches any. Returns: their request ids."""
        found = [
            call
            for call in self._running.values()
            if request_id in ("", call.spec.request_id) and turn_id in ("", call.spec.turn_id)
        ]
        for call in found:
            call.stop(error)
        return [call.spec.request_id for call in found]
