"""The newest attempts of each session, and a live tail of them. Bounded in every direction; holds no content."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator

import msgspec

from warmline_server.core.events import FullReason, SlotOutcome, Transport, Usage
from warmline_server.core.records import AttemptKind, AttemptRecord, AttemptStatus, SessionRecord, SpanIds
from warmline_server.session.observer import Observer

# Closed sessions whose attempts can still be listed: who debugs at night comes late.
KEPT_CLOSED = 256
# Attempts kept in all, of all sessions: about 230 MB, as an entry takes 1.2 kB (measured, with ids as they come).
MAX_KEPT = 200_000
# Entries that a slow tail may be behind before the oldest are dropped.
TAIL_ENTRIES = 256


class Inference(msgspec.Struct, frozen=True):
    """One attempt as it stood at a moment. Blank and None as in `AttemptRecord`.

    `number` in its session's ring counts attempts from 1 and orders them; it pages a listing.
    """

    ring_number: int
    attempt_id: str
    request_id: str
    turn_id: str
    lane: str
    attempt: int
    kind: AttemptKind
    status: AttemptStatus
    transport: Transport
    slot_outcome: SlotOutcome
    connection_id: str
    incremental: bool
    full_reason: FullReason | None
    model: str
    response_id: str
    upstream_request_id: str | None
    upstream_handshake_request_id: str | None
    usage: Usage | None
    started_unix_ns: int
    first_event_unix_ns: int | None
    ended_unix_ns: int | None
    error_reason: str
    upstream_status: int | None
    span: SpanIds | None
    request_bytes: int
    output_items: int


class Tail:
    """What happens to a session's attempts from now on. `skipped` counts entries dropped since it was last read."""

    def __init__(self) -> None:
        self._entries: deque[Inference] = deque()
        self._skipped = 0
        self._ended = False
        self._news = asyncio.Event()

    async def next(self) -> tuple[Inference, int] | None:
        """The next entry, and how many were dropped before it; None when the session is closed. Cancel: safe."""
        while not self._entries:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        skipped, self._skipped = self._skipped, 0
        return self._entries.popleft(), skipped

    def put(self, entry: Inference) -> None:
        """Adds an entry; a reader that is too slow loses the oldest."""
        if len(self._entries) == TAIL_ENTRIES:
            self._entries.popleft()
            self._skipped += 1
        self._entries.append(entry)
        self._news.set()

    def end(self) -> None:
        """No more entries come."""
        self._ended = True
        self._news.set()


class _Running(msgspec.Struct, frozen=True):
    """An attempt that has not ended: its record says how it stands when somebody asks."""

    ring_number: int
    record: AttemptRecord

    def now(self) -> Inference:
        """As it stands now."""
        return _entry(self.record, self.ring_number)


class _SessionRing:
    """A session's newest attempts, by attempt id, oldest first."""

    def __init__(self) -> None:
        self.entries: OrderedDict[str, Inference | _Running] = OrderedDict()
        self.tails: set[Tail] = set()
        self.count = 0
        self.running = 0
        self.closed = False

    def start(self, attempt: AttemptRecord) -> None:
        self.count += 1
        self.running += 1
        running = self.entries[attempt.attempt_id] = _Running(self.count, attempt)
        if self.tails:
            self._tell(running.now())

    def update(self, attempt: AttemptRecord) -> None:
        """Writes what an attempt has come to; one that was pushed out stays out."""
        known = self.entries.get(attempt.attempt_id)
        if known is not None:
            entry = self.entries[attempt.attempt_id] = _entry(attempt, known.ring_number)
            self._tell(entry)

    def _tell(self, entry: Inference) -> None:
        for tail in self.tails:
            tail.put(entry)

    def end_tails_when_idle(self) -> None:
        """A session is closed before its running attempts have ended, and followers want to see those ends."""
        if self.closed and not self.running:
            for tail in self.tails:
                tail.end()
            self.tails.clear()


class InferenceRing(Observer):
    """Keeps the newest `per_session` attempts of each session, of those that closed last too, and `max_kept` in all."""

    def __init__(self, per_session: int, *, max_kept: int = MAX_KEPT) -> None:
        self._per_session = per_session
        self._max_kept = max_kept
        self._rings: dict[tuple[str, str], _SessionRing] = {}
        self._closed: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._kept: OrderedDict[str, _SessionRing] = OrderedDict()

    def newest(self, tenant: str, session_id: str, *, before: int | None = None) -> Iterator[Inference]:
        """A session's attempts, newest first; nothing for an unknown session.

        Args: `before`: only those whose `ring_number` is smaller, None: all.
        """
        ring = self._rings.get((tenant, session_id))
        for entry in reversed(list(ring.entries.values())) if ring is not None else ():
            if before is None or entry.ring_number < before:
                yield entry.now() if isinstance(entry, _Running) else entry

    def knows(self, tenant: str, session_id: str) -> bool:
        """Whether the session is open, or closed and not forgotten."""
        return (tenant, session_id) in self._rings

    def open_tail(self, tenant: str, session_id: str) -> Tail:
        """Starts to follow a session that is known; `close_tail` ends it."""
        tail = Tail()
        ring = self._rings[tenant, session_id]
        ring.tails.add(tail)
        ring.end_tails_when_idle()
        return tail

    def close_tail(self, tenant: str, session_id: str, tail: Tail) -> None:
        """Stops following."""
        ring = self._rings.get((tenant, session_id))
        if ring is not None:
            ring.tails.discard(tail)

    def session_opened(self, session: SessionRecord) -> None:
        key = _key(session)
        self._closed.pop(key, None)
        self._rings.setdefault(key, _SessionRing()).closed = False

    def session_closed(self, session: SessionRecord, reason: str) -> None:
        key = _key(session)
        self._rings[key].closed = True
        self._rings[key].end_tails_when_idle()
        self._closed[key] = None
        while len(self._closed) > KEPT_CLOSED:
            forgotten, _ = self._closed.popitem(last=False)
            for attempt_id in self._rings.pop(forgotten).entries:
                del self._kept[attempt_id]

    def attempt_started(self, attempt: AttemptRecord) -> None:
        ring = self._rings[_key(attempt.session)]
        ring.start(attempt)
        self._kept[attempt.attempt_id] = ring
        if len(ring.entries) > self._per_session:
            oldest, _ = ring.entries.popitem(last=False)
            del self._kept[oldest]
        if len(self._kept) > self._max_kept:
            oldest, its_ring = self._kept.popitem(last=False)
            del its_ring.entries[oldest]

    def attempt_ended(self, attempt: AttemptRecord) -> None:
        ring = self._rings.get(_key(attempt.session))
        if ring is not None:
            ring.update(attempt)
            ring.running -= 1
            ring.end_tails_when_idle()

    def attempt_evidence(self, attempt: AttemptRecord) -> None:
        ring = self._rings.get(_key(attempt.session))
        if ring is not None:
            ring.update(attempt)


def _key(session: SessionRecord) -> tuple[str, str]:
    return session.tenant, session.session_id


def _entry(attempt: AttemptRecord, ring_number: int) -> Inference:
    call, connect = attempt.call, attempt.connect
    refused = attempt.error is not None and attempt.http_status is not None and attempt.http_status >= 400
    return Inference(
        ring_number=ring_number,
        attempt_id=attempt.attempt_id,
        request_id=call.request_id if call is not None else "",
        turn_id=call.turn_id if call is not None else "",
        lane=call.lane if call is not None else "",
        attempt=attempt.number,
        kind=attempt.kind,
        status=attempt.status,
        transport=attempt.transport,
        slot_outcome=attempt.slot_outcome,
        connection_id=attempt.connection_id,
        incremental=attempt.incremental,
        full_reason=attempt.full_reason,
        model=attempt.model,
        response_id=attempt.response_id,
        upstream_request_id=attempt.upstream_request_id,
        upstream_handshake_request_id=connect.upstream_handshake_request_id if connect is not None else None,
        usage=attempt.usage,
        started_unix_ns=attempt.started_unix_ns,
        first_event_unix_ns=attempt.first_event_unix_ns,
        ended_unix_ns=attempt.ended_unix_ns,
        error_reason=attempt.error.reason.value if attempt.error is not None else "",
        upstream_status=attempt.http_status if refused else None,
        span=attempt.span,
        request_bytes=len(attempt.request),
        output_items=len(attempt.output_items),
    )
