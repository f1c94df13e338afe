"""The printed span tree: what hangs beneath what, with the ids a reader looks for."""

import re

from observe import record_kit as kit
from observe.record_kit import Play
from observe.spans import EndedSpans, provider_of
from warmline_server.core.errors import Reason, ServiceError
from warmline_server.core.records import AttemptStatus, CallOutcome
from warmline_server.observe.tracing import TracingObserver
from warmline_server.observe.tree import draw, spans_of_turn


async def _spans() -> EndedSpans:
    """Two turns of a session: the first adopts the warm socket, the second is retried over HTTP and cancelled."""
    spans = EndedSpans()
    play, session = Play(TracingObserver(provider_of(spans))), kit.session()
    warm = play.warm(session, request_id="hs-1")
    first = play.start(kit.call(session, "turn-1"))
    play.complete(play.send(kit.attempt(session, first, warm)), "resp-1")
    play.end(first, CallOutcome.COMPLETED)
    second = play.start(kit.call(session, "turn-2"))
    failed = play.send(kit.attempt(session, second))
    play.finish(failed, AttemptStatus.FAILED, kit.refused())
    play.finish(play.send(kit.attempt(session, second, replaces=failed)), AttemptStatus.CANCELLED, response_id="resp-2")
    play.end(second, CallOutcome.CANCELLED, ServiceError(Reason.TURN_DRAINED, "x"))
    return spans


async def test_tree_of_a_turn_shows_its_spans_and_the_warm_up_it_adopted() -> None:
    spans = (await _spans()).spans

    text = draw(spans_of_turn(spans, "turn-1"))

    assert re.sub(r"\b[0-9a-f]{16,32}\b", "#", text).splitlines() == [
        "trace #",
        "└─ turn [#]  200.0 ms  turn_id=turn-1  response_id=resp-1  outcome=completed",
        "   └─ chat m-1 [#]  130.0 ms  turn_id=turn-1  response_id=resp-1  upstream_handshake_request_id=hs-1  "
        "transport=websocket  slot.outcome=adopted  request.incremental=false  request.full_reason=new_socket  "
        "outcome=completed",
        "         ⇢ connection #",
        "trace #",
        "└─ preconnect [#]  2.0 ms  upstream_handshake_request_id=hs-1  http.response.status_code=101",
    ]


async def test_tree_marks_errors_and_links_a_retry_to_what_it_replaces() -> None:
    spans = (await _spans()).spans

    lines = draw(spans_of_turn(spans, "turn-2")).splitlines()

    failed, retried = (line for line in lines if "chat m-1" in line)
    assert "ERROR TURN_DRAINED" in lines[1]
    assert "├─ chat" in failed
    assert "ERROR UPSTREAM_FAILED" in failed
    assert "└─ chat" in retried
    span_id = re.search(r"\[([0-9a-f]{16})\]", failed)
    assert span_id is not None
    assert f"⇢ replaces {span_id[1]}" in lines[lines.index(retried) + 1]
    assert "resp-1" not in "".join(lines)


async def test_unknown_turn_draws_nothing() -> None:
    assert draw(spans_of_turn((await _spans()).spans, "turn-9")) == ""
