"""The ring of recent attempts and its tail: what they keep, what they let go, and that they say so."""

import asyncio

from observe import record_kit as kit
from observe.record_kit import Play
from warmline_server.core.errors import Reason
from warmline_server.core.records import AttemptKind, AttemptStatus, SessionRecord, SpanIds
from warmline_server.observe.ring import KEPT_CLOSED, TAIL_ENTRIES, InferenceRing


def _filled(ring: InferenceRing, session: SessionRecord, count: int) -> list[str]:
    """Opens the session and completes attempts of one call. Returns: their ids, oldest first."""
    play, call = Play(ring), kit.call(session)
    ring.session_opened(session)
    made = []
    for number in range(count):
        attempt = play.send(kit.attempt(session, call))
        play.complete(attempt, f"resp-{number}")
        made.append(attempt.attempt_id)
    return made


def test_ring_lists_the_newest_first_and_forgets_the_oldest() -> None:
    ring, session = InferenceRing(3), kit.session()
    made = _filled(ring, session, 5)

    listed = list(ring.newest("", "s-1"))

    assert [entry.attempt_id for entry in listed] == made[:1:-1]
    assert [entry.ring_number for entry in listed] == [5, 4, 3]
    assert [entry.ring_number for entry in ring.newest("", "s-1", before=4)] == [3]


def test_entry_says_what_the_record_says() -> None:
    ring, session = InferenceRing(3), kit.session()
    ring.session_opened(session)
    play, call = Play(ring), kit.call(session, lane="side")
    attempt = kit.attempt(session, call, play.warm(session, request_id="hs-1"))
    attempt.span = SpanIds("a" * 32, "b" * 16, sampled=True)
    play.send(attempt)
    (running,) = ring.newest("", "s-1")
    attempt.http_status = 429
    play.first_event(attempt)
    play.finish(attempt, AttemptStatus.FAILED, kit.refused(Reason.UPSTREAM_RATE_LIMITED), response_id="resp-9")

    (ended,) = ring.newest("", "s-1")
    assert (running.status, running.ended_unix_ns, running.error_reason) == (AttemptStatus.RUNNING, None, "")
    assert (ended.status, ended.error_reason, ended.upstream_status) == (
        AttemptStatus.FAILED,
        "UPSTREAM_RATE_LIMITED",
        429,
    )
    assert (ended.turn_id, ended.lane, ended.request_id) == ("turn-1", "side", call.request_id)
    assert (ended.response_id, ended.upstream_request_id) == ("resp-9", None)
    assert ended.upstream_handshake_request_id == "hs-1"
    assert ended.kind is AttemptKind.TURN
    assert ended.span == attempt.span
    assert ended.first_event_unix_ns == attempt.first_event_unix_ns
    assert ended.request_bytes == len(attempt.request)


def test_entry_of_a_running_attempt_says_how_it_stands_now() -> None:
    ring, session = InferenceRing(3), kit.session()
    ring.session_opened(session)
    play = Play(ring)
    attempt = play.send(kit.attempt(session, kit.call(session)))
    (before,) = ring.newest("", "s-1")

    play.first_event(attempt)
    attempt.response_id = "resp-1"

    (after,) = ring.newest("", "s-1")
    assert (before.first_event_unix_ns, before.response_id) == (None, "")
    assert (after.first_event_unix_ns, after.response_id) == (attempt.first_event_unix_ns, "resp-1")
    assert after.ring_number == before.ring_number


def test_late_evidence_reaches_the_entry() -> None:
    ring, session = InferenceRing(3), kit.session()
    ring.session_opened(session)
    play = Play(ring)
    attempt = play.send(kit.attempt(session, kit.call(session)))
    play.finish(attempt, AttemptStatus.CANCELLED)
    attempt.upstream_request_id = "req-late"

    ring.attempt_evidence(attempt)

    (entry,) = ring.newest("", "s-1")
    assert (entry.status, entry.upstream_request_id) == (AttemptStatus.CANCELLED, "req-late")


def test_tenants_do_not_see_each_other() -> None:
    ring = InferenceRing(3)
    _filled(ring, kit.session(tenant="a"), 1)

    assert not ring.knows("b", "s-1")
    assert list(ring.newest("b", "s-1")) == []


def test_all_sessions_together_are_bounded() -> None:
    ring = InferenceRing(10, max_kept=4)
    _filled(ring, kit.session("one"), 3)
    _filled(ring, kit.session("two"), 3)

    assert len(list(ring.newest("", "one"))) == 1
    assert len(list(ring.newest("", "two"))) == 3


def test_closed_session_is_listed_until_enough_others_closed() -> None:
    ring, session = InferenceRing(2), kit.session("first")
    _filled(ring, session, 2)
    ring.session_closed(session, "caller")
    for number in range(KEPT_CLOSED - 1):
        other = kit.session(f"s-{number}")
        _filled(ring, other, 1)
        ring.session_closed(other, "caller")

    assert len(list(ring.newest("", "first"))) == 2

    last = kit.session("last")
    ring.session_opened(last)
    ring.session_closed(last, "caller")

    assert not ring.knows("", "first")
    assert list(ring.newest("", "first")) == []


def test_reopened_session_goes_on_in_its_ring() -> None:
    ring = InferenceRing(5)
    _filled(ring, kit.session(), 1)
    ring.session_closed(kit.session(), "idle")
    _filled(ring, kit.session(), 1)

    assert [entry.ring_number for entry in ring.newest("", "s-1")] == [2, 1]


async def test_tail_gets_start_and_end_and_then_the_sessions_end() -> None:
    ring, session = InferenceRing(5), kit.session()
    ring.session_opened(session)
    tail = ring.open_tail("", "s-1")
    waiting = asyncio.create_task(tail.next())
    await asyncio.sleep(0)
    play = Play(ring)
    attempt = play.send(kit.attempt(session, kit.call(session)))
    first = await asyncio.wait_for(waiting, 5)
    play.complete(attempt)
    second = await tail.next()
    ring.session_closed(session, "caller")

    assert first is not None
    assert second is not None
    assert [first[0].status, second[0].status] == [AttemptStatus.RUNNING, AttemptStatus.COMPLETED]
    assert await tail.next() is None


async def test_slow_tail_loses_the_oldest_and_is_told_how_many() -> None:
    ring, session = InferenceRing(5), kit.session()
    ring.session_opened(session)
    tail = ring.open_tail("", "s-1")
    call = kit.call(session)
    for _ in range(TAIL_ENTRIES + 7):
        ring.attempt_started(kit.attempt(session, call))

    news = await tail.next()
    after = await tail.next()

    assert news is not None
    assert after is not None
    assert (news[0].attempt, news[1]) == (8, 7)
    assert (after[0].attempt, after[1]) == (9, 0)


async def test_closed_tail_takes_nothing_more() -> None:
    ring, session = InferenceRing(5), kit.session()
    ring.session_opened(session)
    tail = ring.open_tail("", "s-1")
    ring.close_tail("", "s-1", tail)
    ring.attempt_started(kit.attempt(session, kit.call(session)))
    tail.end()

    assert await tail.next() is None
