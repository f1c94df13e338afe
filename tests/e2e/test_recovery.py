"""A credential that the upstream refuses: renewed and repeated within the call, or the end of it."""

from pathlib import Path
from typing import Any

import grpc
import pytest

from e2e.line import TRANSPORTS, config_for, hear, open_line
from warmline_server.settings import Credential
from warmline_simulator import Connection, Reply, Script

ONCE: dict[str, Any] = {"warm_up": "none", "retries": 0, "request_retries": 0}


def script_of(transport: str, *, gate: str | None = None, times: int = 1) -> Script:
    """Refusals of the credential, over the one transport or the other, the first held at a gate."""
    if transport == "http":
        return Script(posts=[Reply(status=401, gate=gate) for _ in range(times)])
    return Script(connections=[Connection(status=401, gate=gate) for _ in range(times)])


def authorizations(line: Any) -> list[str]:
    """What each handshake and each POST brought."""
    records = [*line.sim.handshakes, *line.sim.posts()]
    return [record.headers["authorization"] for record in records]


@pytest.mark.conformance("C-066")
@TRANSPORTS
async def test_a_refused_credential_is_read_again_and_the_request_repeated_without_cost(
    transport: str, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("old")
    profile = {"credential": Credential(source="file", file=str(key))}
    async with (
        open_line(script_of(transport, gate="refusal"), profile=profile) as line,
        line.session(config=config_for(transport, **ONCE)) as session,
        session.turn("hello") as turn,
    ):
        await line.sim.wait_for_gate("refusal")
        key.write_text("renewed")
        line.sim.release("refusal")
        result = await turn.result()
        assert authorizations(line) == ["Bearer old", "Bearer renewed"]
        assert result.transport == ("HTTP" if transport == "http" else "WEBSOCKET")
        assert result.fell_back is None
        # Over HTTP the refused try is an attempt of its own, with the request id of its refusal.
        attempts = [inference async for inference in session.list_inferences()]
        assert len(attempts) == (2 if transport == "http" else 1)
        if transport == "http":
            assert attempts[1].upstream_status == 401
            assert attempts[1].upstream_request_id == line.sim.posts()[0].request_id


@pytest.mark.conformance("C-066")
@TRANSPORTS
async def test_a_recovery_is_no_resend_and_is_not_announced_as_one(transport: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first")
    # A program that brings another credential each time.
    program = ("/bin/sh", "-c", f"cat {key}; printf x >> {key}")
    profile = {"credential": Credential(source="command", command=program)}
    async with (
        open_line(script_of(transport), profile=profile) as line,
        line.session(config=config_for(transport, **ONCE)) as session,
    ):
        heard = await hear(session.turn("hello"))
        assert heard.result.ending == "completed"
        assert not {"retrying", "fell_back"} & {*heard.kinds}
        assert authorizations(line) == ["Bearer first", "Bearer firstx"]


@pytest.mark.conformance("C-067")
@TRANSPORTS
async def test_a_refusal_that_no_step_is_left_for_is_final(transport: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old")
    profile = {"credential": Credential(source="file", file=str(key))}
    async with (
        open_line(script_of(transport), profile=profile) as line,
        line.session(config=config_for(transport, **ONCE)) as session,
    ):
        heard = await hear(session.turn("hello"))
        assert (heard.failure.reason, heard.failure.code) == ("UPSTREAM_AUTH", grpc.StatusCode.FAILED_PRECONDITION)
        assert heard.failure.upstream is not None
        assert heard.failure.upstream.status == 401
        assert heard.failure.retry_after_s is None
        assert not {"retrying", "fell_back"} & {*heard.kinds}
        assert authorizations(line) == ["Bearer old"]
        assert (await session.get()).fallback.active is (transport == "http")


@pytest.mark.conformance("C-067")
@TRANSPORTS
async def test_each_step_is_taken_once_in_a_call(transport: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("first")
    program = ("/bin/sh", "-c", f"cat {key}; printf x >> {key}")
    profile = {"credential": Credential(source="command", command=program)}
    async with (
        open_line(script_of(transport, times=2), profile=profile) as line,
        line.session(config=config_for(transport, **ONCE)) as session,
    ):
        heard = await hear(session.turn("hello"))
        assert heard.failure.reason == "UPSTREAM_AUTH"
        assert authorizations(line) == ["Bearer first", "Bearer firstx"]
