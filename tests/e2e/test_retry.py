"""What follows a failure: which are final, which are resent, after which wait, from which budget."""

import socket
from typing import Any

import grpc
import pytest

import warmline
from e2e.line import (
    TRANSPORTS,
    Heard,
    Line,
    config_for,
    hear,
    open_line,
    read_until,
    script_for,
    seconds,
    session_config,
)
from manual_clock import ManualClock
from warmline_simulator import Connection, Reply, Script, ev, read


async def hear_once(transport: str, reply: Reply, **options: Any) -> tuple[Heard, Line]:
    """What a caller that wants no resend hears of a reply."""
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        return await hear(session.turn("hello", retry="never", **options)), line


def with_error(status: int, code: str | None = None, message: str = "told why", **fields: Any) -> Reply:
    """A refusal of a request, over either transport."""
    headers = fields.pop("headers", {})
    return Reply(status=status, body=ev.http_error(status, code, message, **fields), headers=headers)


# Backoff and budgets


@pytest.mark.conformance("C-038")
async def test_five_resends_wait_two_hundred_milliseconds_and_twice_as_long_each_time() -> None:
    clock = ManualClock()
    script = Script(connections=[Connection(status=500) for _ in range(6)])
    config = session_config(warm_up="none", retries=5)
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        async with session.turn("hello") as turn:
            for number, nominal_s in enumerate((0.2, 0.4, 0.8, 1.6, 3.2), start=1):
                retrying = (await read_until(turn, "retrying")).retrying
                delay_s = seconds(retrying)
                assert (retrying.retry, retrying.max_retries) == (number, 5)
                assert delay_s == pytest.approx(nominal_s, rel=0.1)
                await clock.wait_for_timer(delay_s + 1e-6)
                # The wait itself is what `retrying` says; here it is seen to be waited for, neither half nor twice.
                await clock.advance(0.5 * delay_s)
                assert len(line.sim.handshakes) == number
                await clock.advance(0.6 * delay_s)
            await read_until(turn, "fell_back")
        assert len(line.sim.handshakes) == 6


@pytest.mark.conformance("C-038")
async def test_waits_are_spread() -> None:
    clock = ManualClock()
    config = session_config(warm_up="none", retries=5)
    script = Script(connections=[Connection(status=500) for _ in range(6)])
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"), clock)
        factors = {delay_s / (0.2 * 2**number) for number, delay_s in enumerate(heard.delays_s)}
        assert len(factors) > 1


@pytest.mark.conformance("C-039")
@pytest.mark.conformance("D-18")
@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_post_that_fails_is_sent_up_to_five_times(status: int) -> None:
    """D-18: and each resend is announced."""
    reply = Reply(status=status, body=ev.http_error(status, "server_error"), times=5)
    clock = ManualClock()
    config = config_for("http", retries=0, request_retries=4)
    async with open_line(Script(posts=[reply]), clock=clock) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"), clock)
        assert heard.failure.code is grpc.StatusCode.UNAVAILABLE
        assert len(line.sim.posts()) == 5
        assert [(retrying.retry, retrying.max_retries) for retrying in heard.of("retrying")] == [
            (number, 4) for number in (1, 2, 3, 4)
        ]
        for number, delay_s in enumerate(heard.delays_s):
            assert delay_s == pytest.approx(0.2 * 2**number, rel=0.1)


@pytest.mark.conformance("C-039")
async def test_a_post_that_finds_nobody_is_sent_up_to_five_times() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        profile = {"base_url": f"http://127.0.0.1:{taken.getsockname()[1]}/v1"}
        clock = ManualClock()
        config = config_for("http", retries=0, request_retries=4)
        async with open_line(profile=profile, clock=clock) as line, line.session(config=config) as session:
            heard = await hear(session.turn("hello"), clock)
    assert (heard.failure.reason, heard.failure.code) == ("UPSTREAM_UNREACHABLE", grpc.StatusCode.UNAVAILABLE)
    assert [retrying.retry for retrying in heard.of("retrying")] == [1, 2, 3, 4]


@pytest.mark.conformance("C-039")
@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
async def test_a_post_that_was_rejected_is_sent_once(status: int) -> None:
    config = config_for("http", retries=5, request_retries=4)
    async with open_line(Script(posts=[with_error(status)])) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"))
        assert not heard.of("retrying")
        assert len(line.sim.posts()) == 1
        assert heard.failure.upstream is not None
        assert heard.failure.upstream.status == status


@pytest.mark.conformance("C-039")
async def test_a_post_is_sent_again_as_it_was_and_ends_well() -> None:
    clock = ManualClock()
    script = Script(posts=[Reply(status=500, body=ev.http_error(500), times=4), Reply.model()])
    config = config_for("http", retries=0, request_retries=4)
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"), clock)
        assert heard.result.attempts == 5
        assert len({post.raw for post in line.sim.posts()}) == 1


@pytest.mark.conformance("C-080")
async def test_the_connection_limit_costs_a_resend_on_a_new_socket() -> None:
    limit = ev.error(400, "websocket_connection_limit_reached", "60 minutes")
    script = Script(connections=[Connection(replies=[Reply(events=[limit])]), Connection()])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session(config=session_config(retries=1)) as session:
        heard = await hear(session.turn("hello"), clock)
        (retrying,) = heard.of("retrying")
        assert (retrying.reason, retrying.retry, retrying.max_retries) == ("UPSTREAM_STREAM_LOST", 1, 1)
        assert heard.result.transport == "WEBSOCKET"
        assert [request.connection for request in line.sim.requests] == [0, 1]


@pytest.mark.conformance("C-081")
@pytest.mark.conformance("D-5")
async def test_a_forgotten_response_is_healed_by_the_whole_request_on_a_new_socket_without_cost() -> None:
    """The [N] form, D-5."""
    forgotten = ev.error(400, "previous_response_not_found", "gone", param="previous_response_id")
    first = Connection(replies=[Reply.model(), Reply(events=[forgotten])])
    script = Script(connections=[first, Connection(replies=[Reply.model()])])
    config = session_config(retries=0)
    # No time passes: the resend waits for nothing.
    async with open_line(script, clock=ManualClock()) as line, line.session(config=config) as session:
        former = (await hear(session.turn("hello"))).result
        heard = await hear(session.turn(["hello", *former.items, "go on"]))
        assert heard.result.full_reason == "PREVIOUS_RESPONSE_LOST"
        assert heard.delays_s == [0.0]
        requests = line.sim.requests
        assert [request.connection for request in requests] == [0, 0, 1]
        assert [request.previous_response_id for request in requests] == [None, former.response_id, None]
        assert read.message_texts(requests[2].body) == ["hello", "go on"]


@pytest.mark.conformance("C-081")
@pytest.mark.conformance("D-5")
async def test_a_response_that_is_forgotten_twice_costs_a_resend() -> None:
    forgotten = Reply(events=[ev.error(400, "previous_response_not_found", "gone")])
    script = Script(connections=[Connection(replies=[forgotten]) for _ in range(3)])
    clock = ManualClock()
    config = session_config(retries=1)
    async with open_line(script, clock=clock) as line, line.session(config=config) as session:
        heard = await hear(session.turn("hello"), clock)
        assert [retrying.retry for retrying in heard.of("retrying")] == [0, 1]
        assert heard.result.transport == "HTTP"
        assert len(line.sim.handshakes) == 3


# Refusals


@pytest.mark.conformance("C-077")
@pytest.mark.parametrize(
    ("code", "reason", "status"),
    [
        ("context_length_exceeded", "CONTEXT_TOO_LONG", grpc.StatusCode.FAILED_PRECONDITION),
        ("insufficient_quota", "UPSTREAM_QUOTA", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("usage_not_included", "UPSTREAM_QUOTA", grpc.StatusCode.RESOURCE_EXHAUSTED),
        ("cyber_policy", "POLICY_VIOLATION", grpc.StatusCode.FAILED_PRECONDITION),
        ("invalid_prompt", "UPSTREAM_REJECTED", grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
@TRANSPORTS
async def test_a_failed_response_of_a_final_code_is_never_resent(
    transport: str, code: str, reason: str, status: grpc.StatusCode
) -> None:
    reply = Reply(events=[ev.created(), ev.failed(code, "told why")])
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello"))
        assert (heard.failure.reason, heard.failure.code) == (reason, status)
        assert heard.failure.upstream is not None
        assert (heard.failure.upstream.code, heard.failure.upstream.message) == (code, "told why")
        assert heard.failure.retry_after_s is None
        assert len(line.sim.requests) == 1
        assert not heard.of("fell_back")


@pytest.mark.conformance("C-077")
@pytest.mark.parametrize(
    ("code", "delay_s"), [("server_is_overloaded", 10.0), ("slow_down", 10.0), ("server_error", 0.2), ("whatever", 0.2)]
)
@TRANSPORTS
async def test_a_failed_response_of_another_code_is_resent(transport: str, code: str, delay_s: float) -> None:
    """An overloaded upstream is resent too, after ten seconds: the later text of §6.1."""
    reply = Reply(events=[ev.created(), ev.failed(code, "told why")])
    script = script_for(transport, reply)
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello"), clock)
        assert heard.delays_s == [pytest.approx(delay_s, rel=0.1)]
        assert heard.result.ending == "completed"


@pytest.mark.conformance("C-077")
@pytest.mark.parametrize("error", [None, "broken", {}])
async def test_a_failed_response_without_a_readable_error_is_resent(error: object) -> None:
    event = {"type": "response.failed", "response": {"id": "resp-1", "status": "failed", "error": error}}
    script = Script(creates=[Reply(events=[ev.created(), event])])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello"), clock)
        assert [retrying.reason for retrying in heard.of("retrying")] == ["UPSTREAM_FAILED"]
        assert heard.result.ending == "completed"


@pytest.mark.conformance("C-078")
@pytest.mark.parametrize(
    ("code", "message", "delay_s"),
    [
        ("rate_limit_exceeded", "Please try again in 11.054s.", 11.054),
        ("rate_limit_exceeded", "Please Try Again In 28ms.", 0.028),
        ("rate_limit_exceeded", "try again in 2 seconds", 2.0),
        ("rate_limit_exceeded", "no figure at all", None),
        ("server_error", "Please try again in 11.054s.", None),
    ],
)
async def test_the_wait_that_a_rate_limit_asks_for_in_words(code: str, message: str, delay_s: float | None) -> None:
    script = Script(creates=[Reply(events=[ev.created(), ev.failed(code, message)])])
    clock = ManualClock()
    async with open_line(script, clock=clock) as line, line.session() as session:
        heard = await hear(session.turn("hello"), clock)
        expected = pytest.approx(0.2, rel=0.1) if delay_s is None else pytest.approx(delay_s)
        assert heard.delays_s == [expected]
        assert heard.result.ending == "completed"


@pytest.mark.conformance("C-083")
@TRANSPORTS
async def test_a_usage_limit_shows_the_limits_and_then_is_final(transport: str) -> None:
    headers = {
        "x-codex-primary-used-percent": "100",
        "x-codex-primary-window-minutes": "300",
        "x-codex-primary-reset-at": "1700000300",
    }
    body = {"error": {"type": "usage_limit_reached", "message": "limit", "plan_type": "pro", "code": None}}
    reply = Reply(status=429, body=body, headers=headers)
    script = script_for(transport, reply)
    async with open_line(script) as line, line.session(config=config_for(transport)) as session:
        heard = await hear(session.turn("hello"))
        assert heard.kinds[-1] == "rate_limits"
        (limits,) = heard.of("rate_limits")
        assert (limits.limit_id, limits.plan_type) == ("codex", "pro")
        assert (limits.primary.used_percent, limits.primary.window_minutes) == (100.0, 300)
        assert limits.primary.reset_time.ToSeconds() == 1700000300
        assert heard.failure.reason == "UPSTREAM_QUOTA"
        assert heard.failure.retry_after_s is None
        assert isinstance(heard.failure, warmline.QuotaExhaustedError)
        assert len(line.sim.requests) == 1
        assert [kept.limit_id for kept in (await session.get()).rate_limits] == ["codex"]


@pytest.mark.conformance("C-084")
@TRANSPORTS
async def test_a_rejected_request_is_final_and_says_why(transport: str) -> None:
    heard, line = await hear_once(transport, with_error(400, "invalid_value", "no such tool", param="tools[0]"))
    assert isinstance(heard.failure, warmline.InvalidRequestError)
    assert heard.failure.reason == "UPSTREAM_REJECTED"
    words = heard.failure.upstream
    assert words is not None
    assert (words.status, words.code, words.param, words.message) == (400, "invalid_value", "tools[0]", "no such tool")
    assert len(line.sim.requests) == 1


@pytest.mark.conformance("C-089")
@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        (400, {}, "UPSTREAM_REJECTED"),
        (400, {"code": "cyber_policy"}, "POLICY_VIOLATION"),
        (400, {"code": "invalid_value", "param": "input[0].content[0].image_url"}, "INVALID_IMAGE"),
        (400, {"code": "invalid_image"}, "INVALID_IMAGE"),
        (403, {}, "UPSTREAM_PERMISSION"),
        (404, {}, "UPSTREAM_NOT_FOUND"),
        (429, {"kind": "usage_not_included"}, "UPSTREAM_QUOTA"),
        (429, {"kind": "usage_limit_reached"}, "UPSTREAM_QUOTA"),
        (429, {"kind": "rate_limit_error"}, "UPSTREAM_RATE_LIMITED"),
        (500, {}, "UPSTREAM_FAILED"),
        (502, {}, "UPSTREAM_FAILED"),
        (503, {"code": "slow_down"}, "UPSTREAM_OVERLOADED"),
        (503, {"code": "server_is_overloaded"}, "UPSTREAM_OVERLOADED"),
        (503, {"code": "whatever"}, "UPSTREAM_FAILED"),
    ],
)
@TRANSPORTS
async def test_each_status_has_its_meaning_and_its_headers_name_the_request(
    transport: str, status: int, error: dict[str, Any], reason: str
) -> None:
    reply = with_error(status, headers={"x-request-id": "req-failed"}, **error)
    heard, _ = await hear_once(transport, reply)
    assert heard.failure.reason == reason
    assert heard.failure.upstream_request_id == "req-failed"
    assert heard.failure.upstream is not None
    assert heard.failure.upstream.status == status


@pytest.mark.conformance("C-089")
@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({"x-request-id": None, "x-oai-request-id": "oai-1"}, "oai-1"),
        ({"x-request-id": "req-1", "x-oai-request-id": "oai-1"}, "req-1"),
        ({"x-request-id": None, "cf-ray": "ray-1"}, None),
    ],
)
async def test_the_id_of_a_failed_handshake_comes_from_its_headers(
    headers: dict[str, str | None], request_id: str | None
) -> None:
    script = Script(connections=[Connection(status=403, headers=headers)])
    async with open_line(script) as line, line.session(config=session_config(warm_up="none")) as session:
        heard = await hear(session.turn("hello"))
        assert heard.failure.reason == "UPSTREAM_PERMISSION"
        assert heard.failure.upstream_request_id == request_id
        assert ("ray-1" in heard.failure.message) == (request_id is None)
