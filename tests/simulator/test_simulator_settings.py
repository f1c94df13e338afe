"""The settings that no other test turns: each does what it says."""

from __future__ import annotations

import asyncio

from warmline_simulator import Close, Connection, Frame, Headers, ManualClock, Reply, Script, Simulator, ev

from .wire_client import ask, create, id_of, open_http, open_ws, receive, receive_until_end, send, text_of

ASK = {"model": "m", "input": "hi"}


async def test_request_ids_and_rate_limit_headers_can_be_left_out() -> None:
    async with Simulator() as sim, open_http(sim) as http:
        told = (await http.post("/responses", json=ASK)).headers
    async with Simulator(request_ids=False, rate_limit_headers=False) as sim, open_http(sim) as http, open_ws(sim):
        bare = (await http.post("/responses", json=ASK)).headers
        upgrade = sim.handshakes[0].response_headers

    assert told["x-ratelimit-remaining-requests"] == "9999"
    assert "x-request-id" in told
    for headers in (bare, upgrade):
        assert not [name for name in headers if name == "x-request-id" or name.startswith("x-ratelimit-")]


async def test_turn_state_is_a_text_or_follows_from_the_request() -> None:
    async with Simulator(turn_state="ts-1") as sim, open_http(sim) as http, open_ws(sim) as ws:
        assert ws.response is not None
        assert ws.response.headers["x-codex-turn-state"] == "ts-1"
        assert (await http.post("/responses", json=ASK)).headers["x-codex-turn-state"] == "ts-1"

    def echo(headers: Headers) -> str | None:
        return headers.get("x-codex-turn-state")

    async with Simulator(turn_state=echo) as sim, open_http(sim) as http:
        sent = await http.post("/responses", json=ASK, headers={"x-codex-turn-state": "mine"})
        none = await http.post("/responses", json=ASK)

    assert sent.headers["x-codex-turn-state"] == "mine"
    assert "x-codex-turn-state" not in none.headers


async def test_the_first_word_waits_for_first_delay() -> None:
    clock = ManualClock()
    async with Simulator(clock=clock, first_delay_s=60.0) as sim, open_ws(sim) as ws:
        await send(ws, create())
        assert [(await receive(ws))["type"] for _ in range(2)] == ["response.created", "response.in_progress"]
        await clock.wait_for_sleepers(1)
        clock.advance(60.0)
        assert "hello" in text_of(await receive_until_end(ws))


async def test_keep_records_and_keep_frames_bound_what_is_kept() -> None:
    async with Simulator(keep_records=2, keep_frames=True) as sim, open_ws(sim) as ws:
        events = [await ask(ws, f"n{number}") for number in range(3)]

    assert [record.index for record in sim.requests] == [1, 2]
    assert sim.counters.creates_full == 3
    assert len(sim.requests[1].frames) == len(events[2]) == sim.requests[1].events_sent
    assert b"n2" in b"".join(sim.requests[1].frames)


async def test_the_store_forgets_the_oldest() -> None:
    async with Simulator(stored_responses=1) as sim, open_http(sim) as http:
        made = [(await http.post("/responses", json=ASK)).json()["id"] for _ in range(2)]
        statuses = [(await http.get(f"/responses/{response_id}")).status_code for response_id in made]

    assert statuses == [404, 200]


async def test_heads_beyond_the_limit_and_no_http_at_all_are_refused() -> None:
    async with Simulator(max_head_bytes=1000) as sim:
        large = await _raw(sim, b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Big: " + b"x" * 2000)
        noise = await _raw(sim, b"\x00\x01 not http\r\n\r\n")

    assert large.startswith(b"HTTP/1.1 431 ")
    assert noise.startswith(b"HTTP/1.1 400 ")


async def test_a_client_that_waits_for_100_continue_is_told_to_go_on() -> None:
    body = b'{"model":"m","input":"hi"}'
    head = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with Simulator() as sim:
        reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
        writer.write(head)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(body)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def _raw(sim: Simulator, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


async def test_http_connections_are_kept_and_pipelined_requests_answered_in_order() -> None:
    request = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /v1/none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with Simulator() as sim:
        answer = await _raw(sim, request * 2 + last)

    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]
    assert sim.counters.sockets_total == 1


async def test_raw_frames_and_a_close_without_code_go_out_as_described() -> None:
    fragments: list[Frame | Close] = [Frame(b'{"type":', fin=False), Frame(b'"made.up"}', opcode=0), Close(None)]
    async with Simulator(Script(creates=[Reply(events=fragments)])) as sim, open_ws(sim) as ws:
        await send(ws, create())
        assert await receive(ws) == {"type": "made.up"}
        await ws.wait_closed()

    assert ws.close_code == 1005


async def test_duplicate_and_missing_terminals_are_sent_as_written_and_counted_once() -> None:
    twice = [*ev.text_response("x", response_id="resp-1"), ev.completed("resp-1")]
    script = Script(
        connections=[Connection(replies=[Reply(events=twice), Reply(events=[ev.created()]), Reply.model()])]
    )
    async with Simulator(script) as sim, open_ws(sim) as ws:
        assert id_of(await ask(ws)) == id_of(await receive_until_end(ws)) == "resp-1"
        await send(ws, create())
        assert (await receive(ws))["type"] == "response.created"
        assert (await ask(ws))[-1]["type"] == "response.completed"

    assert [record.outcome for record in sim.requests] == ["completed", "ended", "completed"]
    assert sim.counters.responses_completed == 2
