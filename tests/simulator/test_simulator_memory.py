"""Chains: a connection's memory, the store, eviction, warm-ups, lanes and the age of a socket."""

from __future__ import annotations

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from warmline_simulator import Connection, ManualClock, Reply, Script, Simulator, ev, read

from .wire_client import (
    Json,
    ask,
    ask_error,
    create,
    id_of,
    open_http,
    open_ws,
    receive,
    receive_until_end,
    send,
    text_of,
    types,
)


async def test_a_stored_response_is_hydrated_on_another_connection_and_over_http() -> None:
    async with Simulator() as sim, open_http(sim) as http:
        async with open_ws(sim) as ws:
            first = await ask(ws, "one")
        async with open_ws(sim) as ws:
            second = await ask(ws, "two", previous_response_id=id_of(first))
        third = await http.post("/responses", json={"model": "m", "input": "x", "previous_response_id": id_of(second)})

    assert third.status_code == 200
    assert [record.hydrated for record in sim.requests] == [False, True, True]
    assert read.message_texts({"input": sim.requests[2].visible_input}, "user") == [
        "one",
        "two",
        "x",
    ]


async def test_an_unstored_response_lives_on_its_own_connection_only() -> None:
    async with Simulator() as sim, open_ws(sim) as ws, open_ws(sim) as other, open_http(sim) as http:
        first = await ask(ws, "one", store=False)
        assert "two" in text_of(await ask(ws, "two", store=False, previous_response_id=id_of(first)))
        frame = await ask_error(other, "two", previous_response_id=id_of(first))
        post = await http.post("/responses", json={"model": "m", "input": "x", "previous_response_id": id_of(first)})

    assert frame["error"]["code"] == post.json()["error"]["code"] == "previous_response_not_found"
    assert id_of(first) in frame["error"]["message"]


async def test_a_lane_remembers_its_latest_response_only() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        first = await ask(ws, "one", store=False)
        await ask(ws, "two", store=False, previous_response_id=id_of(first))
        frame = await ask_error(ws, "again", store=False, previous_response_id=id_of(first))

    assert frame["error"]["code"] == "previous_response_not_found"


@pytest.mark.parametrize("failure", ["refused", "failed"])
async def test_a_failed_continuation_evicts_what_it_continued(failure: str) -> None:
    replies = [Reply.model(), Reply.model() if failure == "refused" else Reply(events=ev.failed_response())]
    async with Simulator(Script(creates=replies)) as sim, open_ws(sim) as ws:
        first = await ask(ws, "one", store=False)
        wrong = {"temperature": 9} if failure == "refused" else {}
        await ask(ws, "two", store=False, previous_response_id=id_of(first), **wrong)
        frame = await ask_error(ws, "two", store=False, previous_response_id=id_of(first))

    assert frame["error"]["code"] == "previous_response_not_found"


async def test_a_failed_fork_keeps_the_parent_of_the_other_lane() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        first = await ask(ws, "one", store=False)
        await ask_error(ws, "fork", store=False, previous_response_id=id_of(first), stream_id="fork", temperature=9)
        second = await ask(ws, "two", store=False, previous_response_id=id_of(first))

    assert "two" in text_of(second)


async def test_a_fork_that_has_begun_outlives_the_advance_of_its_source_lane() -> None:
    script = Script(creates=[Reply.model(), Reply.model(between_s=60.0), Reply.model()])
    clock = ManualClock()
    async with Simulator(script, clock=clock) as sim, open_ws(sim) as ws:
        first = await ask(ws, "one", store=False)
        await send(ws, create("fork", store=False, previous_response_id=id_of(first), stream_id="fork"))
        while (await receive(ws))["type"] != "response.in_progress":
            pass
        await send(ws, create("two", store=False, previous_response_id=id_of(first)))
        await sim.wait_for_requests(3)
        await _receive_lane_end(ws, None)
        clock.advance(10_000.0)

    assert read.message_texts({"input": sim.requests[1].visible_input}) == ["one", "fork"]


async def _receive_lane_end(ws: ClientConnection, lane: str | None) -> Json:
    while True:
        event = await receive(ws)
        if event.get("stream_id") == lane and event["type"] == "response.completed":
            return event


async def test_a_lane_without_previous_id_starts_fresh() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        await ask(ws, "one", store=False, stream_id="a")
        await ask(ws, "two", store=False, stream_id="a")

    assert read.message_texts({"input": sim.requests[1].visible_input}) == ["two"]


async def test_a_warm_up_costs_no_output_and_can_be_continued() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        warm = await ask(ws, [], instructions="be brief", store=False, generate=False)
        turn = await ask(ws, "go", store=False, previous_response_id=id_of(warm))
        mid = await ask(ws, [], store=False, previous_response_id=id_of(turn), prompt_cache_options={"prewarm": True})
        last = await ask(ws, [], store=False, previous_response_id=id_of(mid))

    assert types(warm) == types(mid) == ["response.created", "response.completed"]
    usage = warm[-1]["response"]["usage"]
    assert (usage["output_tokens"], warm[-1]["response"]["output"]) == (0, [])
    assert usage["input_tokens"] > 0
    assert "go" in text_of(last)
    assert (sim.counters.warm_ups, sim.counters.creates_delta, sim.counters.creates_full) == (2, 2, 0)


@pytest.mark.parametrize("name", ["", "a b", "x" * 257, "caf\u00e9", 7, None])
async def test_a_bad_lane_name_is_refused_and_not_echoed(name: object) -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        frame = await ask_error(ws, stream_id=name)

    assert (frame["status"], frame["error"]["code"], frame["error"]["param"]) == (400, "invalid_stream_id", "stream_id")
    assert "stream_id" not in frame


async def test_the_33rd_named_lane_is_refused_and_echoed_while_the_default_lane_is_not_counted() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        await ask(ws)
        for number in range(32):
            await ask(ws, stream_id=f"lane.{number}")
        frame = await ask_error(ws, stream_id="one-more")
        assert text_of(await ask(ws, stream_id="lane.0"))
        assert text_of(await ask(ws))

    assert (frame["error"]["code"], frame["error"]["param"]) == ("websocket_stream_limit_reached", "stream_id")
    assert frame["stream_id"] == "one-more"


async def test_one_lane_answers_in_order_while_lanes_run_side_by_side() -> None:
    replies = [Reply.model(gate="first"), Reply.model(), Reply.model()]
    async with Simulator(Script(creates=replies)) as sim, open_ws(sim) as ws:
        for text, lane in (("one", "a"), ("two", "a"), ("three", "b")):
            await send(ws, create(text, stream_id=lane))
        assert (await receive_until_end(ws))[-1]["stream_id"] == "b"
        sim.release("first")
        texts = [text_of(await receive_until_end(ws)) for _ in range(2)]

    assert ["one" in texts[0], "two" in texts[1]] == [True, True]


async def test_the_17th_response_in_flight_waits_for_one_of_sixteen() -> None:
    replies = [Reply.model(gate="hold", times=16), Reply.model()]
    async with Simulator(Script(creates=replies)) as sim, open_ws(sim) as ws:
        for number in range(17):
            await send(ws, create(f"n{number}", stream_id=f"lane{number}"))
        await sim.wait_for_gate("hold", 16)
        assert sim.counters.responses_running == 16
        sim.release("hold")
        ends = [(await receive_until_end(ws))[-1]["stream_id"] for _ in range(17)]

    assert ends[-1] == "lane16"


async def test_serial_mode_has_no_lanes_and_answers_one_after_the_other() -> None:
    script = Script(creates=[Reply.model(gate="first"), Reply.model()])
    async with Simulator(script, serial=True) as sim, open_ws(sim) as ws:
        assert (await ask_error(ws, stream_id="a"))["error"]["param"] == "stream_id"
        await send(ws, create("one"))
        await send(ws, create("two"))
        await sim.wait_for_gate("first")
        assert sim.counters.responses_running == 1
        sim.release("first")
        assert "one" in text_of(await receive_until_end(ws))
        assert "two" in text_of(await receive_until_end(ws))


async def test_an_hour_ends_the_socket_with_an_error_of_no_lane() -> None:
    clock = ManualClock()
    async with Simulator(clock=clock) as sim, open_ws(sim) as ws:
        await ask(ws)
        clock.advance(3599.0)
        await ask(ws)
        clock.advance(1.0)
        frame = await receive(ws)
        with pytest.raises(ConnectionClosed):
            await ws.recv()
        async with open_ws(sim) as fresh:
            await ask(fresh)

    assert (frame["status"], frame["error"]["code"]) == (400, "websocket_connection_limit_reached")
    assert frame["error"]["param"] is None
    assert "stream_id" not in frame


async def test_the_limit_hits_a_running_response() -> None:
    clock = ManualClock()
    script = Script(creates=[Reply.model(between_s=1.0)])
    async with Simulator(script, clock=clock, lifetime_s=5.0) as sim, open_ws(sim) as ws:
        await send(ws, create())
        await receive(ws)
        clock.advance(5.0)
        events = await receive_until_end(ws)
        await sim.wait_for_connections_closed(1)

    assert events[-1]["error"]["code"] == "websocket_connection_limit_reached"
    assert sim.requests[0].outcome == "error"
    assert sim.counters.aborted_turns == 0


async def test_hydration_takes_its_time() -> None:
    clock = ManualClock()
    async with Simulator(clock=clock, hydration_delay_s=30.0) as sim, open_ws(sim) as ws, open_ws(sim) as other:
        first = await ask(ws)
        await send(other, create(previous_response_id=id_of(first)))
        await clock.wait_for_sleepers(1)
        clock.advance(30.0)
        assert text_of(await receive_until_end(other))

    assert [record.answered_at_s for record in sim.requests] == [0.0, 30.0]


async def test_stored_responses_can_be_read_and_deleted() -> None:
    async with Simulator() as sim, open_http(sim) as http:
        made = (await http.post("/responses", json={"model": "m", "input": "hi"})).json()
        url = f"/responses/{made['id']}"
        assert (await http.get(url)).json() == made
        assert (await http.get(f"{url}/input_items")).json()["data"][0]["role"] == "user"
        assert (await http.post(f"{url}/cancel", json={})).status_code == 400
        assert (await http.delete(url)).json()["deleted"] is True
        assert (await http.get(url)).status_code == 404


async def test_compact_keeps_user_messages_and_gives_items_that_start_a_fresh_chain() -> None:
    items = [ev.user_message("one"), {**ev.message("two", id="m1")}, ev.user_message("three")]
    async with Simulator() as sim, open_http(sim) as http, open_ws(sim) as ws:
        compacted = (await http.post("/responses/compact", json={"model": "m", "input": items})).json()
        events = await ask(ws, [*compacted["output"], ev.user_message("go on")])

    assert [item["type"] for item in compacted["output"]] == ["message", "message", "compaction"]
    assert "go on" in text_of(events)


async def test_memories_are_summarized_one_per_trace() -> None:
    traces = [{"id": "t1", "metadata": {"source_path": "p"}, "items": [ev.user_message("prefers tabs")]}] * 2
    async with Simulator() as sim, open_http(sim) as http:
        good = await http.post("/memories/trace_summarize", json={"model": "m", "traces": traces})
        bad = await http.post("/memories/trace_summarize", json={"model": "m"})

    assert ["prefers tabs" in each["memory_summary"] for each in good.json()["output"]] == [True, True]
    assert (bad.status_code, bad.json()["error"]["param"]) == (400, "traces")


async def test_a_slow_reader_takes_its_time() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(read_bytes_per_s=10.0)])
    async with (
        Simulator(script, clock=clock, lifetime_s=1e9) as sim,
        open_ws(sim, close_timeout=0) as ws,
        open_http(sim) as http,
    ):
        await ask(ws, "one")
        await send(ws, create("two"))
        await http.get("/models")
        assert sim.state.requests_seen == 1
        clock.advance(1000.0)
        assert "two" in text_of(await receive_until_end(ws))
