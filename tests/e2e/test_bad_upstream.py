"""Whatever an upstream answers that is not the protocol ends one call, with its reason, and nothing else."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from e2e.kit import Bystander, Refusal, completed, config, refused_turn, turn_request
from e2e.line import Line, open_line
from manual_clock import ManualClock
from transport.http_kit import Peer, raw_server
from warmline.v1 import trace_service_pb2
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_simulator import Close, Connection, Drop, Frame, Oversize, Reply, Script, Simulator, Stall, ev

CODE = grpc.StatusCode
HTML = "<html><head><title>Bad gateway: the backend is away</title></head><body>come back later</body></html>"
AS_HTML = {"content-type": "text/html"}
PROTOCOL, FAILED_REASON, LOST = "UPSTREAM_PROTOCOL", "UPSTREAM_FAILED", "UPSTREAM_STREAM_LOST"
WORDS = "The words of the provider alone."


def config_for(transport: str, **fields: Any) -> types.SessionConfig:
    """A session of one transport that never sends again."""
    return config(
        fallback_policy=types.FallbackPolicy(http_only=transport == "http"),
        retry_policy=types.RetryPolicy(stream_max_retries=0, request_max_retries=0),
        **fields,
    )


def turn_once(session_id: str, transport: str) -> turns.StreamTurnRequest:
    """A turn whose first failure ends it."""
    return turn_request(session_id, session_config=config_for(transport), retry=turns.RETRY_MODE_NEVER)


async def fail(line: Line, transport: str) -> Refusal:
    """A turn meets what the script holds. The session's next one is fine. Returns: what the first was told."""
    told = await refused_turn(line, turn_once("one", transport))
    await completed(line, turn_once("one", transport))
    return told


@asynccontextmanager
async def bad_day(transport: str, *steps: Any, **options: Any) -> AsyncIterator[Line]:
    """A line whose second upstream request, after a bystander's first, meets the steps of the script."""
    connections = [Connection(), *(step for step in steps if isinstance(step, Connection))]
    posts = [step for step in steps if isinstance(step, Reply)] if transport == "http" else []
    if transport == "ws" and steps and isinstance(steps[0], Reply):
        connections.append(Connection(replies=[step for step in steps if isinstance(step, Reply)]))
    async with open_line(Script(connections=connections, posts=posts), **options) as line:
        bystander = await Bystander(line, "bystander").start()
        yield line
        await bystander.goes_on()


@dataclass(frozen=True)
class Bad:
    """What an upstream does, and what the caller is told."""

    name: str
    transport: str
    step: Connection | Reply
    reason: str
    code: CODE = CODE.UNAVAILABLE
    says: str = ""

    def __str__(self) -> str:
        return f"{self.transport}: {self.name}"


HANDSHAKES = [
    Bad(
        "HTML with 200",
        "ws",
        Connection(status=200, headers=AS_HTML, body=HTML),
        "UPSTREAM_PROTOCOL",
        says="status 200",
    ),
    Bad("JSON with 200", "ws", Connection(status=200, body={"ok": True}), PROTOCOL, says="status 200"),
    Bad("HTML with 502", "ws", Connection(status=502, headers=AS_HTML, body=HTML), FAILED_REASON, says="status 502"),
    Bad("no body with 503", "ws", Connection(status=503, body=""), FAILED_REASON, says="status 503"),
    Bad("404", "ws", Connection(status=404), FAILED_REASON, says="status 404"),
]
POSTS = [
    Bad("HTML with 200", "http", Reply(content_type="text/html", body=HTML), PROTOCOL, says="text/html"),
    Bad("JSON with 200", "http", Reply(body={"id": "resp_1"}), PROTOCOL, says="application/json"),
    Bad(
        "HTML with 502",
        "http",
        Reply(status=502, content_type="text/html", body=HTML),
        "UPSTREAM_FAILED",
        says="status 502",
    ),
    Bad("nothing with 200", "http", Reply(content_type="text/event-stream", body=""), LOST),
    Bad("204", "http", Reply(status=204, body=""), PROTOCOL, says="status 204"),
    Bad("404", "http", Reply(status=404), "UPSTREAM_NOT_FOUND", CODE.FAILED_PRECONDITION, "status 404"),
    Bad("bytes that are no events", "http", Reply(events=[b"\x00\xff\xfe garbage \n\n"]), LOST),
]
ENDS: list[tuple[str, list[Any], str]] = [
    ("event cut short, then the end", ['{"type":"response.crea', Close(1000)], LOST),
    ("the end before the response", [ev.created(), Close(1011)], LOST),
    ("reset before the response", [ev.created(), Drop()], LOST),
    ("completed that cannot be read", [ev.created(), '{"type":"response.completed"}'], PROTOCOL),
]
STREAMS = [
    Bad(name, transport, Reply(events=events), reason) for transport in ("ws", "http") for name, events, reason in ENDS
]
FRAMES = [
    Bad("binary frame", "ws", Reply(events=[b"\x00\x01"]), PROTOCOL, says="binary"),
    Bad("unknown opcode", "ws", Reply(events=[Frame(b"x", opcode=3)]), PROTOCOL, says="frame"),
    Bad(
        "frame compressed for no reason",
        "ws",
        Reply(events=[Frame(b"x", rsv1=True)]),
        "UPSTREAM_PROTOCOL",
        says="frame",
    ),
    Bad("continuation of nothing", "ws", Reply(events=[Frame(b"x", opcode=0)]), PROTOCOL, says="frame"),
]


@pytest.mark.parametrize("bad", [*HANDSHAKES, *POSTS, *STREAMS, *FRAMES], ids=str)
async def test_answer_that_is_not_the_protocol(bad: Bad) -> None:
    compression = {"profile": {"compression": False}}
    async with bad_day(bad.transport, bad.step, **compression) as line:
        told = await fail(line, bad.transport)

    assert (told.code, told.reason) == (bad.code, bad.reason)
    assert bad.says in told.text
    assert "backend is away" not in told.text
    assert told.ids["attempts"] == ("0" if isinstance(bad.step, Connection) else "1")


@pytest.mark.parametrize("transport", ["ws", "http"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_never_followed(transport: str, status: int) -> None:
    async with Simulator() as elsewhere:
        headers = {"location": f"{elsewhere.base_url}/responses"}
        kind: type[Connection | Reply] = Connection if transport == "ws" else Reply
        async with bad_day(transport, kind(status=status, headers=headers, body="")) as line:
            told = await fail(line, transport)

        assert elsewhere.counters.sockets_total == 0
    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_PROTOCOL")
    assert f"status {status}, a redirect" in told.text
    assert str(elsewhere.port) not in told.text


FAILED = {"error": {"code": "server_error", "type": "server_error", "message": WORDS + "é" * 3000, "param": "input"}}


@pytest.mark.parametrize(
    ("transport", "step"),
    [
        ("ws", Connection(status=503, body=FAILED)),
        ("ws", Reply(status=503, body=FAILED)),
        ("ws", Reply(events=[ev.created(), ev.failed("server_error", WORDS + "é" * 3000)])),
        ("http", Reply(status=503, body=FAILED)),
        ("http", Reply(events=[ev.created(), ev.failed("server_error", WORDS + "é" * 3000)])),
        ("http", Reply(events=[ev.sse_error("server_error", WORDS + "é" * 3000)])),
    ],
    ids=["handshake", "error frame", "failed response", "POST", "failed response over SSE", "SSE error"],
)
async def test_words_of_the_provider_are_a_detail_and_cut(transport: str, step: Connection | Reply) -> None:
    async with bad_day(transport, step) as line:
        told = await fail(line, transport)
        logged = [str(span.attributes) for span in line.spans.get_finished_spans()]

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_FAILED")
    assert told.upstream is not None
    assert told.upstream.code == "server_error"
    assert told.upstream.message.startswith(WORDS + "é")
    assert 2046 <= len(told.upstream.message.encode()) <= 2048
    assert WORDS not in told.text
    assert WORDS not in "".join(told.trailing.values())
    assert not any(WORDS in attributes for attributes in logged)


async def test_upstream_that_refuses_the_connection_is_used_when_it_is_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    async with open_line(profile={"base_url": f"http://127.0.0.1:{port}/v1"}) as line:
        for transport in ("ws", "http"):
            told = await refused_turn(line, turn_once(transport, transport))
            assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
            assert told.text == "connect to upstream failed: Connection refused"
        async with Simulator(port=port):
            for transport in ("ws", "http"):
                await completed(line, turn_once(transport, transport))


CONNECT_S = 15.0
IDLE_S = 300.0


async def fall_silent(line: Line, clock: ManualClock, transport: str, seen: Any, limit_s: float) -> Refusal:
    """A turn meets silence: nothing happens until the limit, then it ends."""
    call = asyncio.ensure_future(refused_turn(line, turn_once("one", transport)))
    await seen
    await clock.wait_for_timer(limit_s)
    await clock.advance(limit_s - 0.01)
    assert not call.done()
    await clock.advance(0.02)
    return await call


async def arrived(line: Line, *, events: int) -> None:
    """Returns when the turn's request is upstream and, where there are events, the first came: its clock runs then."""
    await line.sim.wait_for_requests(2)
    request = trace_service_pb2.ListInferencesRequest(session_id="one")
    while events:
        told = await line.client.traces.ListInferences(request)
        if told.inferences and told.inferences[0].HasField("first_event_time"):
            return


async def test_handshake_that_is_never_answered_ends_at_its_limit() -> None:
    clock = ManualClock()
    async with bad_day("ws", Connection(swallow=True), clock=clock, profile={"connect_timeout_s": CONNECT_S}) as line:
        told = await fall_silent(line, clock, "ws", line.sim.wait_for_handshakes(2), CONNECT_S)

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_UNREACHABLE")
    assert "no answer within 15.0 s" in told.text


@pytest.mark.parametrize("transport", ["ws", "http"])
@pytest.mark.parametrize("events", [[], [ev.created(), Stall()]], ids=["nothing at all", "nothing more"])
async def test_stream_that_falls_silent_ends_at_its_limit(transport: str, events: Sequence[Any]) -> None:
    clock = ManualClock()
    # Bystanders' sockets are pinged and age on the same clock; here they shall not.
    quiet = {"idle_timeout_s": IDLE_S, "idle_ping_interval_s": 0.0, "warm_socket_idle_ttl_s": 0.0}
    # Held at its gate, not even the head of an answer comes.
    reply = Reply(events=events) if events else Reply(gate="never")
    async with bad_day(transport, reply, clock=clock, profile=quiet) as line:
        told = await fall_silent(line, clock, transport, arrived(line, events=len(events)), IDLE_S)
        await line.sim.wait_for_aborts(1)

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_IDLE")
    assert "within 300.0 s" in told.text


# What a server that speaks the protocol would answer to the client's key, which is not ours to know beforehand.
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: not-the-answer-to-your-key=\r\n\r\n"
)


@pytest.mark.parametrize("sent", [0, 1, 12, 40, len(SWITCHING) - 1])
@pytest.mark.parametrize("ending", ["reset", "closed"])
async def test_connection_that_ends_within_the_handshake(sent: int, ending: str) -> None:
    told = await _answer_upgrade(SWITCHING[:sent], ending)

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_UNREACHABLE")


@pytest.mark.parametrize(
    "answer",
    [SWITCHING, b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 101 OK\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n" * 50],
    ids=["wrong accept", "SSH", "no upgrade", "TLS", "blank lines"],
)
async def test_answer_to_an_upgrade_that_is_none(answer: bytes) -> None:
    told = await _answer_upgrade(answer, "closed")

    assert told.code is CODE.UNAVAILABLE
    assert told.reason in ("UPSTREAM_UNREACHABLE", "UPSTREAM_PROTOCOL")
    assert "OpenSSH" not in told.text


async def _answer_upgrade(answer: bytes, ending: str) -> Refusal:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(raw_server())
        base_url = server.url.removesuffix("/responses")
        line = await stack.enter_async_context(open_line(profile={"base_url": base_url}))
        call = asyncio.ensure_future(refused_turn(line, turn_once("one", "ws")))
        peer = await server.take_request()
        await _end_within(peer, answer, ending)
        return await call


async def _end_within(peer: Peer, data: bytes, ending: str) -> None:
    if ending == "reset":
        raw = peer.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.send(data)
    await peer.writer.drain()
    peer.writer.close()


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_event_beyond_the_limit_ends_the_call(transport: str) -> None:
    profile = {"max_frame_bytes": 20_000, "max_event_bytes": 20_000}
    async with bad_day(transport, Reply(events=[ev.created(), Oversize(20_001)]), profile=profile) as line:
        told = await fail(line, transport)

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, "UPSTREAM_PROTOCOL")


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_event_below_the_limit_passes(transport: str) -> None:
    profile = {"max_frame_bytes": 20_000, "max_event_bytes": 20_000}
    whole = ev.text_response("x" * 4_000, response_id="resp_1")
    async with bad_day(transport, Reply(events=whole), profile=profile) as line:
        events = await completed(line, turn_once("one", transport))

    assert "".join(event.text_delta.delta for event in events) == "x" * 4_000


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_what_cannot_be_read_between_events_is_left_out(transport: str) -> None:
    whole = ev.text_response("one two three", response_id="resp_1")
    unreadable = [
        '{"type":"response.output_text.del',
        "[1,2]",
        '"text"',
        "{}",
        '{"type":7}',
        '{"type":"response.output_item.done"}',
    ]
    mixed: list[Any] = [step for event in whole[:-1] for step in (event, *unreadable)]
    async with bad_day(transport, Reply(events=[*mixed, whole[-1]])) as line:
        events = await completed(line, turn_once("one", transport))

    assert "".join(event.text_delta.delta for event in events) == "one two three"
    assert len([event for event in events if event.HasField("item_done")]) == 1


@pytest.mark.conformance("C-086")
async def test_nothing_that_comes_in_one_packet_with_a_binary_frame_counts() -> None:
    whole = ev.text_response("one two three", response_id="resp_1")
    async with bad_day("ws", Reply(events=[*whole[:5], b"\x00\x01", *whole[5:]])) as line:
        told = await fail(line, "ws")

    assert (told.code, told.reason) == (CODE.ABORTED, PROTOCOL)


async def test_failed_handshake_is_healed_over_http_when_the_caller_allows_it() -> None:
    html = Connection(status=200, headers=AS_HTML, body=HTML)
    async with bad_day("ws", html) as line:
        events = await completed(line, turn_request("one", session_config=config_for("ws")))

    fell_back = [event.fell_back for event in events if event.HasField("fell_back")]
    assert [(told.latched, told.reason) for told in fell_back] == [(True, "retries_exhausted")]
    assert len(line.sim.posts()) == 1


async def test_events_that_nobody_asked_for_end_the_idle_socket_and_no_turn() -> None:
    async with open_line() as line:
        bystander = await Bystander(line, "bystander").start()
        await completed(line, turn_once("one", "ws"))
        line.sim.send_event(1, ev.text_delta("for nobody"))
        await line.sim.wait_for_connections_closed(1)

        events = await completed(line, turn_once("one", "ws"))
        await bystander.goes_on()

    started = next(event.attempt_started for event in events if event.HasField("attempt_started"))
    assert started.slot_outcome == types.SLOT_OUTCOME_COLD
    assert not any(event.text_delta.delta == "for nobody" for event in events)


@pytest.mark.parametrize(
    ("trailing", "outcome"),
    [
        ([ev.completed()], types.SLOT_OUTCOME_COLD),
        ([ev.failed()], types.SLOT_OUTCOME_COLD),
        ([ev.error(500)], types.SLOT_OUTCOME_COLD),
        ([ev.text_delta("late")], types.SLOT_OUTCOME_COLD),
        ([ev.codex_rate_limits(), {"type": "response.metadata"}], types.SLOT_OUTCOME_REUSED),
    ],
    ids=["second terminal", "failure", "error", "delta", "notices"],
)
async def test_what_comes_in_one_packet_with_the_terminal_event_tells_whether_the_socket_is_kept(
    trailing: Sequence[Any], outcome: int
) -> None:
    whole = ev.text_response("one two three", response_id="resp_1")
    async with bad_day("ws", Reply(events=[*whole, *trailing])) as line:
        first = await completed(line, turn_once("one", "ws"))
        second = await completed(line, turn_once("one", "ws"))

    assert "".join(event.text_delta.delta for event in first) == "one two three"
    assert [e.attempt_started.slot_outcome for e in second if e.HasField("attempt_started")] == [outcome]


@pytest.mark.parametrize("response_id", ["résp", "line\nbreak", "x" * 20_000], ids=["not ASCII", "line break", "long"])
@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_id_that_no_header_can_carry_does_not_cost_the_status(transport: str, response_id: str) -> None:
    async with bad_day(transport, Reply(events=[ev.created(response_id), Drop()])) as line:
        told = await fail(line, transport)

    assert (told.code, told.reason) == (CODE.UNAVAILABLE, LOST)
    assert (told.ids["attempts"], "response_id" in told.ids) == ("1", False)


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_ids_of_a_failure_are_in_the_details_and_in_the_metadata(transport: str) -> None:
    async with bad_day(transport, Reply(events=[ev.created("resp_7"), Drop()])) as line:
        told = await fail(line, transport)
        request_id = line.sim.requests[1].request_id

    expected = {"turn_id": told.ids["turn_id"], "response_id": "resp_7", "attempts": "1"}
    if transport == "http":
        expected["upstream_request_id"] = str(request_id)
    assert told.ids == expected
    assert told.trailing == {f"x-warmline-{name.replace('_', '-')}": value for name, value in expected.items()}


@pytest.mark.parametrize("transport", ["ws", "http"])
@pytest.mark.parametrize("name", ["openai-model", "x-models-etag", "x-request-id", "x-codex-turn-state"])
async def test_header_beyond_ascii_is_no_fault(transport: str, name: str) -> None:
    headers = {name: "café"}
    step = Connection(headers=headers) if transport == "ws" else Reply.model(headers=headers)
    async with bad_day(transport, step) as line:
        for _ in range(2):
            await completed(line, turn_once("one", transport))
