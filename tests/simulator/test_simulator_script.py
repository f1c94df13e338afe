"""Scripts in Python: connections, replies, faults, gates, and what an unfinished script does."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from warmline_simulator import (
    Close,
    Connection,
    Drop,
    Gate,
    Hang,
    ManualClock,
    Nothing,
    Oversize,
    Ping,
    Reply,
    Script,
    Simulator,
    SimulatorFailedError,
    Stall,
    WaitTimeoutError,
    ev,
    read,
)

from .wire_client import (
    ask,
    ask_error,
    create,
    id_of,
    open_http,
    open_ws,
    receive,
    receive_until_end,
    send,
    sse_events,
    text_of,
    types,
)


async def test_replies_are_sent_in_order_per_connection() -> None:
    script = Script(
        connections=[
            Connection(replies=[Reply(events=ev.text_response("one")), Reply(events=ev.text_response("two"))]),
            Connection(replies=[Reply(events=ev.text_response("three"))]),
        ]
    )
    async with Simulator(script) as sim, open_ws(sim) as first, open_ws(sim) as second:
        assert text_of(await ask(second)) == "three"
        assert text_of(await ask(first)) == "one"
        assert text_of(await ask(first)) == "two"

    assert [record.connection for record in sim.requests] == [1, 0, 0]


async def test_events_get_number_id_and_model_of_their_response() -> None:
    script = Script(creates=[Reply(events=ev.text_response("a word", response_id="resp-1"))])
    async with Simulator(script) as sim, open_ws(sim) as ws:
        events = await ask(ws, stream_id="side")

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert {event["stream_id"] for event in events} == {"side"}
    assert id_of(events) == "resp-1"
    assert events[0]["response"]["model"] == "sim-large"
    assert "{{" not in str(events)
    assert sim.requests[0].response_id == "resp-1"


async def test_ids_differ_between_responses_that_use_the_same_builders() -> None:
    script = Script(creates=[Reply(events=ev.text_response("again"), times=2)])
    async with Simulator(script) as sim, open_ws(sim) as ws:
        first, second = await ask(ws), await ask(ws)

    assert id_of(first) != id_of(second)
    assert first[2]["item"]["id"] != second[2]["item"]["id"]


async def test_a_script_continues_with_the_model_that_knows_what_was_scripted() -> None:
    script = Script(creates=[Reply(events=ev.function_call_response("look", "{}", "call-9"))])
    async with Simulator(script) as sim, open_ws(sim) as ws:
        first = await ask(ws, "go")
        second = await ask(ws, [ev.function_call_output("call-9", "seen")], previous_response_id=id_of(first))

    assert "The tool look answered: seen" in text_of(second)
    assert [read.item_type(item) for item in read.visible_items(sim.requests[1])] == [
        "message",
        "function_call",
        "function_call_output",
    ]


async def test_accept_delay_holds_the_upgrade_and_the_clock_releases_it() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(accept_delay_s=10.0, headers={"x-codex-turn-state": "ts-1"})])
    async with Simulator(script, clock=clock) as sim:
        opening = asyncio.create_task(_open_and_read_header(sim))
        await clock.wait_for_sleepers(1)
        assert sim.handshakes[0].status is None
        clock.advance(10.0)
        assert await opening == "ts-1"


async def _open_and_read_header(sim: Simulator) -> str | None:
    async with open_ws(sim) as ws:
        assert ws.response is not None
        return ws.response.headers.get("x-codex-turn-state")


@pytest.mark.parametrize("status", [401, 403, 426, 429, 500, 503])
async def test_an_upgrade_is_refused_with_the_scripted_status(status: int) -> None:
    script = Script(connections=[Connection(status=status, headers={"retry-after": "7"})])
    async with Simulator(script) as sim:
        with pytest.raises(InvalidStatus) as refused:
            await _open_and_read_header(sim)

    assert refused.value.response.status_code == status
    assert refused.value.response.headers["retry-after"] == "7"
    assert sim.handshakes[0].status == status


async def test_a_swallowed_upgrade_is_never_answered() -> None:
    async with Simulator(Script(connections=[Connection(swallow=True)])) as sim:
        asking = asyncio.create_task(_open_and_read_header(sim))
        await sim.wait_for_handshakes(1)
        await asyncio.wait([asking], timeout=0.05)
        assert not asking.done()
        assert sim.handshakes[0].status is None
        asking.cancel()
        await asyncio.wait([asking])


async def test_the_switch_refuses_upgrades_until_it_is_turned_off() -> None:
    async with Simulator(refuse_upgrades=426) as sim:
        with pytest.raises(InvalidStatus):
            await _open_and_read_header(sim)
        sim.refuse_upgrades = None
        async with open_ws(sim) as ws:
            await ask(ws)


@pytest.mark.parametrize(
    ("after", "seen"), [(0, []), (1, ["response.created"]), (5, types(ev.text_response("one two three"))[:5])]
)
async def test_a_drop_resets_the_connection_at_any_point(after: int, seen: list[str]) -> None:
    events = ev.text_response("one two three")[:after]
    script = Script(connections=[Connection(replies=[Reply(events=[*events, Drop()])])])
    async with Simulator(script) as sim, open_ws(sim) as ws:
        await send(ws, create())
        got = [(await receive(ws))["type"] for _ in range(after)]
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()

    assert got == seen
    assert closed.value.rcvd is None
    assert sim.requests[0].outcome == "cut"


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1009, 1011, 1012, 1013])
async def test_a_close_frame_carries_its_code_and_reason(code: int) -> None:
    script = Script(creates=[Reply(events=[ev.created(), Close(code, "why")])])
    async with Simulator(script) as sim, open_ws(sim) as ws:
        await send(ws, create())
        await receive(ws)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "why")


async def test_a_gate_holds_the_answer_until_it_is_released() -> None:
    script = Script(creates=[Reply(events=[ev.created(), Gate("half"), *ev.text_response("rest")[1:]])])
    async with Simulator(script) as sim, open_ws(sim) as ws:
        await send(ws, create())
        assert (await receive(ws))["type"] == "response.created"
        await sim.wait_for_gate("half")
        assert sim.counters.responses_running == 1
        sim.release("half")
        assert (await receive_until_end(ws))[-1]["type"] == "response.completed"


async def test_a_client_that_leaves_is_seen_as_an_abort() -> None:
    async with Simulator(Script(creates=[Reply(events=[ev.created(), Hang()])])) as sim:
        async with open_ws(sim) as ws:
            await send(ws, create())
            await receive(ws)
        await sim.wait_for_aborts(1)
        await sim.wait_for_idle()

    record = sim.requests[0]
    assert (record.outcome, record.finished) == ("aborted", False)
    assert record.disconnected_at_s is not None
    assert record.aborted_at_s is not None


async def test_garbage_goes_out_as_written() -> None:
    odd = [
        Reply(
            events=[
                "{not json",
                b"\x00\x01",
                Ping(b"p"),
                {"type": "response.made_up"},
                Oversize(70_000),
                ev.completed(),
            ]
        )
    ]
    async with Simulator(Script(creates=odd)) as sim, open_ws(sim) as ws:
        await send(ws, create())
        assert await ws.recv() == "{not json"
        assert await ws.recv() == b"\x00\x01"
        assert (await receive(ws))["type"] == "response.made_up"
        assert len((await receive(ws))["delta"]) == 70_000
        assert (await receive(ws))["type"] == "response.completed"


async def test_a_stalled_connection_answers_no_ping_while_a_hanging_one_does() -> None:
    script = Script(connections=[Connection(replies=[Reply(events=[step])]) for step in (Hang(), Stall())])
    async with Simulator(script) as sim, open_ws(sim) as hanging, open_ws(sim, close_timeout=0) as stalled:
        for ws in (hanging, stalled):
            await send(ws, create())
        await sim.wait_for_requests(2)
        await (await hanging.ping())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(await stalled.ping(), 0.05)


async def test_http_replies_have_status_headers_and_any_body() -> None:
    script = Script(
        posts=[
            Reply(status=429, headers={"retry-after": "3", "x-request-id": "req_mine"}),
            Reply(body="<html>", content_type="text/html"),
            Reply(events=ev.text_response("fine"), headers={"x-request-id": None}),
        ]
    )
    body = {"model": "m", "input": "x", "stream": True}
    async with Simulator(script) as sim, open_http(sim) as http:
        refused = await http.post("/responses", json=body)
        page = await http.post("/responses", json=body)
        fine = await http.post("/responses", json=body)

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert (page.text, page.headers["content-type"]) == ("<html>", "text/html")
    assert text_of(sse_events(fine.text)) == "fine"
    assert sim.requests[0].request_id == "req_mine"
    assert sim.requests[2].request_id is None


async def test_an_sse_stream_can_end_without_a_terminal_or_break() -> None:
    half = ev.text_response("half")[:5]
    script = Script(
        posts=[Reply(events=[*half, Nothing()]), Reply(events=[*half, Close()]), Reply(events=[*half, Drop()])]
    )
    body = {"model": "m", "input": "x", "stream": True}
    async with Simulator(script) as sim, open_http(sim) as http:
        ended = await http.post("/responses", json=body)
        assert types(sse_events(ended.text)) == types(half)
        for error in (httpx.RemoteProtocolError, httpx.ReadError):
            with pytest.raises(error):
                await http.post("/responses", json=body)

    assert [record.outcome for record in sim.requests] == ["ended", "cut", "cut"]


async def test_match_and_times_choose_the_reply() -> None:
    def is_warm(record: object) -> bool:
        return read.is_warm_up(record)  # type: ignore[arg-type]

    script = Script(
        creates=[
            Reply(events=ev.warm_up_response("resp-warm"), match=is_warm),
            Reply(events=ev.text_response("turn"), times=2),
        ]
    )
    async with Simulator(script) as sim, open_ws(sim) as ws:
        assert text_of(await ask(ws)) == "turn"
        assert id_of(await ask(ws, generate=False)) == "resp-warm"
        assert text_of(await ask(ws)) == "turn"

    assert sim.counters.warm_ups == 1


async def test_steps_never_asked_for_fail_the_run_by_name() -> None:
    script = Script(
        connections=[Connection(replies=[Reply(), Reply()]), Connection()],
        posts=[Reply(times=3)],
    )

    async def run() -> None:
        async with Simulator(script) as sim, open_ws(sim) as ws:
            await send(ws, create())
            await sim.wait_for_requests(1)

    with pytest.raises(SimulatorFailedError) as failed:
        await run()

    assert failed.value.problems == [
        "never asked for: connections[1]: no upgrade came",
        "never asked for: connections[0].replies[1]: asked for 0 of 1 times",
        "never asked for: posts[0]: asked for 0 of 3 times",
    ]


async def test_an_error_in_the_test_is_not_hidden_by_an_unfinished_script() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Simulator(Script(posts=[Reply()])):
            raise ZeroDivisionError


async def test_strict_refuses_and_reports_what_no_script_expects() -> None:
    async def run() -> None:
        script = Script(connections=[Connection()])
        async with Simulator(script, strict=True) as sim, open_ws(sim) as ws, open_http(sim) as http:
            assert (await ask_error(ws))["error"]["code"] == "simulator_unscripted"
            assert (await http.post("/responses", json={"model": "m", "input": "x"})).status_code == 500
            with pytest.raises(InvalidStatus):
                await _open_and_read_header(sim)

    with pytest.raises(SimulatorFailedError) as failed:
        await run()

    assert failed.value.problems == [
        "not in the script: ws request 0: GET /v1/responses",
        "not in the script: http request 1: POST /v1/responses",
        "not in the script: upgrade 1: GET /v1/responses",
    ]


async def test_a_wait_that_times_out_says_what_was_seen() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        await ask(ws)
        with pytest.raises(WaitTimeoutError) as late:
            await sim.wait_for_requests(2, timeout_s=0.01)

    assert "waited for 2 requests" in str(late.value)
    assert "requests ['ws:completed']" in str(late.value)


async def test_an_idle_connection_can_be_closed_by_script_and_by_hand() -> None:
    script = Script(connections=[Connection(then=[Gate("go"), Close(1012, "restart")]), Connection(), Connection()])
    async with Simulator(script) as sim, open_ws(sim) as one, open_ws(sim) as two, open_ws(sim) as three:
        sim.release("go")
        sim.close_connection(1, 1001)
        sim.drop_connection(2)
        codes = []
        for ws in (one, two, three):
            await ws.wait_closed()
            codes.append(ws.close_code)
        await sim.wait_for_connections_closed(3)
        await sim.wait_for_idle()

    assert codes == [1012, 1001, 1006]
    assert sim.counters.responses_running == 0


async def test_close_after_and_reset_after_bytes_end_the_connection() -> None:
    script = Script(connections=[Connection(close_after=1, close_code=1013), Connection(reset_after_bytes=100)])
    async with Simulator(script) as sim, open_ws(sim) as first, open_ws(sim) as second:
        await ask(first)
        await first.wait_closed()
        with pytest.raises(ConnectionClosed):
            await ask(second)

    assert (first.close_code, second.close_code) == (1013, 1006)
