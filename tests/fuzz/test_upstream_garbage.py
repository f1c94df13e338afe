"""Garbage from an upstream, over both transports, through the real server: it costs one call, and nothing else.

The cases are made from seeds of the targets, the same ones every time.
"""

import random
from typing import Any

import grpc.aio
import pytest

from e2e.kit import Bystander, completed, config, read_refusal, refused_turn, turn_request
from e2e.line import Line, open_line
from fuzz.make import deflated
from fuzz.targets.events import EVENTS
from fuzz.test_targets import ODD
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_simulator import Close, Connection, Frame, Reply, Script, ev

TRANSPORTS = pytest.mark.parametrize("transport", ["ws", "http"])
DEEP = b"[" * 200 + b"]" * 200


def garbage(seed: int, transport: str) -> list[Any]:
    """Steps of an answer: events right, broken and foreign, in any order."""
    maker = random.Random(seed)
    steps: list[Any] = [ev.created()]
    for _ in range(12):
        payload = maker.choice(EVENTS)
        for _ in range(maker.randint(0, 2)):
            at = maker.randrange(len(payload))
            payload = payload[:at] + maker.choice(ODD)[:400] + payload[at + maker.randint(0, 8) :]
        if transport == "http":
            steps.append(maker.choice([b"data: %b\n\n", b"data:%b\r\n\r\n", b"%b\n", b": %b\n\n"]) % payload)
        else:
            steps.append(maker.choice([Frame(payload), Frame(payload, fin=maker.random() < 0.8)]))
    return steps


def request(session_id: str, transport: str) -> turns.StreamTurnRequest:
    """A turn that is sent once."""
    policy = types.FallbackPolicy(http_only=transport == "http")
    retries = types.RetryPolicy(stream_max_retries=0, request_max_retries=0)
    made = config(fallback_policy=policy, retry_policy=retries)
    return turn_request(session_id, session_config=made, retry=turns.RETRY_MODE_NEVER)


async def ending(line: Line, sent: turns.StreamTurnRequest) -> str:
    """Runs a call to its end. Returns: the reason of its failure; blank when it ended well."""
    stream = line.client.turns.StreamTurn(sent)
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        return read_refusal(error).reason
    return ""


def script_of(transport: str, answer: Reply) -> Script:
    """The answer to the second request upstream, after a bystander's first."""
    if transport == "http":
        return Script(posts=[answer])
    return Script(connections=[Connection(), Connection(replies=[answer])])


@TRANSPORTS
@pytest.mark.parametrize("seed", range(5))
async def test_garbage_costs_one_call_and_neither_its_session_nor_another(seed: int, transport: str) -> None:
    answer = Reply(events=garbage(seed, transport))
    async with open_line(script_of(transport, answer)) as line:
        bystander = await Bystander(line, "bystander").start()
        reason = await ending(line, request("one", transport))
        await completed(line, request("one", transport))
        await bystander.goes_on()

        # One of the provider's doing, never one of ours.
        assert reason not in ("INTERNAL", "INVALID_REQUEST")


CAPS: list[tuple[str, str, Any, dict[str, Any], str]] = [
    ("item too deep", "ws", b'{"type":"response.output_item.done","item":{"a":' + DEEP + b"}}", {}, "nested deeper"),
    ("item too deep", "http", b'{"type":"response.output_item.done","item":{"a":' + DEEP + b"}}", {}, "nested deeper"),
    ("event too large", "ws", b'"' + b"x" * 70_000 + b'"', {"max_frame_bytes": 65_536}, "PayloadTooBig"),
    ("event too large", "http", b'"' + b"x" * 70_000 + b'"', {"max_event_bytes": 65_536}, "SSE line of more than"),
    *(
        (
            "response too large",
            transport,
            b'{"type":"response.output_item.done","item":{"type":"message","a":"' + b"x" * 2000 + b'"}}',
            {"max_response_bytes": 1000},
            "more output items",
        )
        for transport in ("ws", "http")
    ),
]


@pytest.mark.parametrize(("transport", "payload", "profile", "says"), [c[1:] for c in CAPS], ids=[c[0] for c in CAPS])
async def test_cap_ends_the_call_with_its_reason_and_the_next_one_works(
    transport: str, payload: bytes, profile: dict[str, Any], says: str
) -> None:
    # The end that follows is what the call would meet without the cap.
    steps = [b"data: " + payload + b"\n\n"] if transport == "http" else [Frame(payload), Close(1000)]
    answer = Reply(events=[ev.created(), *steps])
    async with open_line(script_of(transport, answer), profile=profile) as line:
        bystander = await Bystander(line, "bystander").start()
        refusal = await refused_turn(line, request("one", transport))
        await completed(line, request("one", transport))
        await bystander.goes_on()

        assert refusal.reason == "UPSTREAM_PROTOCOL"
        assert says in refusal.text


async def test_deflate_bomb_ends_the_call_with_its_reason_and_the_next_one_works() -> None:
    bomb = [Frame(payload, rsv1=True) for payload in deflated(*[b"0" * 1_000_000] * 20)]
    async with open_line(Script(creates=[Reply(events=bomb)])) as line:
        refusal = await refused_turn(line, request("one", "ws"))
        await completed(line, request("one", "ws"))

        assert (refusal.reason, "inflates more than" in refusal.text) == ("UPSTREAM_PROTOCOL", True)


HEADERS = {f"x-header-{number}": "x" * 1000 for number in range(80)}


async def test_reply_with_too_many_headers_breaks_the_protocol() -> None:
    answer = Reply(events=[ev.created()], headers=HEADERS)
    async with open_line(Script(posts=[answer])) as line:
        refusal = await refused_turn(line, request("one", "http"))
        await completed(line, request("one", "http"))

        assert (refusal.reason, "more headers" in refusal.text) == ("UPSTREAM_PROTOCOL", True)


async def test_handshake_with_too_many_headers_breaks_the_protocol() -> None:
    async with open_line(Script(connections=[Connection(headers=HEADERS)])) as line:
        refusal = await refused_turn(line, request("one", "ws"))
        await completed(line, request("one", "ws"))

        assert (refusal.reason, "more headers" in refusal.text) == ("UPSTREAM_PROTOCOL", True)


async def test_session_keeps_as_many_families_of_limits_as_any_provider_has() -> None:
    told = [
        f'{{"type":"codex.rate_limits","metered_limit_name":"f{number:03}","rate_limits":{{}}}}'
        for number in range(100)
    ]
    async with open_line(Script(creates=[Reply(events=[*told, *ev.text_response("hello")])])) as line:
        await completed(line, request("one", "ws"))
        [session] = [value async for value in line.client.list_sessions()]

        assert [limits.limit_id for limits in session.rate_limits] == [f"f{number:03}" for number in range(68, 100)]
