"""`warmline turn` against a scripted server: what it sends, prints, saves, and how it ends."""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2

from client.fake_server import (
    Call,
    FakeServer,
    Refusal,
    Step,
    admitted,
    answer,
    call_item,
    completed,
    created,
    done,
    message_item,
    refuse,
    retry_info,
    says,
    started,
    text,
)
from warmline.v1 import errors_pb2, session_service_pb2, turn_service_pb2, types_pb2
from warmline_cli import turn
from warmline_cli.conversation import read_conversation, user_item

# An exported conversation as people have them: indented, with escapes, numbers and line ends of its own.
EXPORTED = b"""[
  {"type": "message", "role": "user", "content": [
    {"type": "input_text", "text": "What is in K\\u00f6ln?"},
    {"type": "input_image", "image_url": "https://images.example/a.png?w=1&h=2"}]},
  {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAABo+/zz=="},
  {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{\\"zoom\\": 1.0}"},
  {"type": "function_call_output", "call_id": "call_1", "output": "9007199254740993"},
  {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A cathedral \\/"}]}
]
"""


@contextlib.asynccontextmanager
async def scripted(*steps: Step, closes: int = 1) -> AsyncIterator[FakeServer]:
    """A server that answers the turns so, and that many closes of a session."""
    closed = session_service_pb2.CloseSessionResponse()
    async with FakeServer() as server:
        server.on("StreamTurn", *steps)
        server.on("CloseSession", *[answer(closed)] * closes)
        yield server


async def command(server: FakeServer, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    turn.add_arguments(parser)
    return await turn.run(parser.parse_args(["--server", server.target, *arguments]))


async def test_prompt_streams_text_to_stdout_and_facts_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    async with scripted(says("Hel", "lo ☀")) as server:
        code = await command(server, "Say hello.", "--model", "small")

    printed = capsys.readouterr()
    assert code == 0
    assert printed.out == "Hello ☀\n"
    assert printed.err == (
        "turn turn-1, slot ADOPTED, over WEBSOCKET, response resp_1, upstream request unknown (WebSocket), "
        "12 tokens in (4 cached), 5 out\n"
    )
    request = server.calls[0].request
    assert [item.json for item in request.input] == [user_item("Say hello.")]
    assert request.options.model == "small"


async def test_outcome_names_the_upstream_request_over_http(capsys: pytest.CaptureFixture[str]) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), started(types_pb2.TRANSPORT_HTTP, types_pb2.SLOT_OUTCOME_NONE), created())
        await call.send(completed(upstream_request_id="req_9"))

    async with scripted(step) as server:
        await command(server, "Hi")

    assert "slot NONE, over HTTP, response resp_1, upstream request req_9," in capsys.readouterr().err


async def test_arguments_reach_the_request(tmp_path: Path) -> None:
    tools = tmp_path / "tools.json"
    tools.write_bytes(b'[{"type" : "function"}]')

    async with scripted(says("x"), closes=0) as server:
        await command(
            server, "Hi", "--session", "mine", "--lane", "side", "--turn-id", "t-1", "--upstream", "main",
            "--tools", str(tools), "--timeout", "30",
        )  # fmt: skip

    request = server.calls[0].request
    assert (request.session_id, request.lane, request.turn_id) == ("mine", "side", "t-1")
    assert request.session_config == types_pb2.SessionConfig(upstream="main")
    assert list(request.options.tools.tools_json) == [b'{"type" : "function"}']
    assert server.calls[0].time_remaining_s is not None
    assert 25 < server.calls[0].time_remaining_s < 31  # gRPC rounds a deadline up


async def test_session_of_ones_own_is_closed_and_a_named_one_is_not() -> None:
    async with scripted(says("x"), says("x"), closes=1) as server:
        await command(server, "Hi")
        await command(server, "Hi", "--session", "mine")

    turned, closed, named = server.calls
    assert closed.request.session_id == turned.request.session_id != ""
    assert named.request.session_id == "mine"


async def test_attached_session_is_used_with_the_config_it_has() -> None:
    async with scripted(says("x"), closes=0) as server:
        await command(server, "Hi", "--session", "mine", "--attach")

    assert not server.calls[0].request.HasField("session_config")


async def test_exported_conversation_goes_out_byte_for_byte_and_its_continuation_too(tmp_path: Path) -> None:
    exported, saved = tmp_path / "exported.json", tmp_path / "saved.jsonl"
    exported.write_bytes(EXPORTED)
    items = read_conversation(EXPORTED).items
    reasoning = b'{"id":"rs_2","type":"reasoning",  "summary":[],"encrypted_content":"gBBB\\u002b=="}'
    answered = (reasoning, message_item("Yes."))

    async def step(call: Call) -> None:
        await call.send(admitted(), started(), *[done(item) for item in answered], completed())

    async with scripted(step, says("Again."), closes=2) as server:
        assert await command(server, "--input", str(exported), "--output", str(saved)) == 0
        assert await command(server, "And now?", "--input", str(saved), "--output", str(saved)) == 0

    first, second = server.of("StreamTurn")
    assert all(item in EXPORTED for item in items)
    assert tuple(item.json for item in first.request.input) == items
    follow_up = (*items, *answered, user_item("And now?"))
    assert tuple(item.json for item in second.request.input) == follow_up
    assert saved.read_bytes() == b"".join(item + b"\n" for item in (*follow_up, message_item("Again.")))
    assert exported.read_bytes() == EXPORTED


async def test_saved_request_body_goes_out_with_its_fields(tmp_path: Path) -> None:
    saved = tmp_path / "body.json"
    saved.write_bytes(
        b'{"model":"m","stream":true,"input":[' + call_item() + b'],"tools":[ {"type":"x"} ],"top_p":1.0}'
    )

    async with scripted(says("x")) as server:
        await command(server, "--input", str(saved))

    request = server.calls[0].request
    assert [item.json for item in request.input] == [call_item()]
    assert request.request_json == b'{"model":"m","tools":[ {"type":"x"} ],"top_p":1.0}'
    assert not request.options.ListFields()


async def test_json_prints_one_object_per_event_with_the_payload_verbatim(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    payload = b'{"type":"response.output_item.done",\n "item":{"n":1.0,"t":"K\xc3\xb6ln"}}'

    async def step(call: Call) -> None:
        await call.send(admitted())
        event = call.event(done(b'{"n":1.0,"t":"K\xc3\xb6ln"}'))
        event.upstream_type, event.payload_json = "response.output_item.done", payload
        retrying = turn_service_pb2.Retrying(reason="UPSTREAM_FAILED", retry=1)
        retrying.delay.FromMilliseconds(1500)
        await call.write(turn_service_pb2.StreamTurnResponse(events=[event]))
        await call.send(started(), retrying, completed())

    async with scripted(step) as server:
        code = await command(server, "Hi", "--json")

    lines = capsysbinary.readouterr().out.splitlines()
    events = [json.loads(line) for line in lines]
    assert code == 0
    assert server.calls[0].request.events == turn_service_pb2.EVENT_MODE_BOTH
    assert [event["event"] for event in events] == ["admitted", "item_done", "attempt_started", "retrying", "completed"]
    assert [event["sequence"] for event in events] == [1, 2, 3, 4, 5]
    assert lines[1].endswith(b'"payload":' + payload.replace(b"\n", b" ") + b"}")
    assert b'"item":{"n":1.0,"t":"K\xc3\xb6ln"}' in lines[1]
    assert events[1]["upstream_type"] == "response.output_item.done"
    assert events[2]["data"]["slot_outcome"] == "SLOT_OUTCOME_ADOPTED"
    assert events[2]["data"]["incremental"] is False
    assert events[3]["data"]["delay"] == 1.5
    assert events[4]["data"]["history_position"] == 2
    assert events[4]["data"]["usage"]["input_tokens"] == 12
    assert "upstream_request_id" not in events[4]["data"]


async def test_raw_prints_the_providers_events_alone(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    saved = tmp_path / "saved.jsonl"
    payload = b'{"type":"response.output_item.done","item":' + message_item("Hi") + b"}"

    async def step(call: Call) -> None:
        await call.send(admitted(), started())
        event = call.event(turn_service_pb2.RawEvent())
        event.upstream_type, event.payload_json = "response.output_item.done", payload
        await call.write(turn_service_pb2.StreamTurnResponse(events=[event]))
        await call.send(completed())

    async with scripted(step) as server:
        await command(server, "Hi", "--raw", "--output", str(saved))

    assert server.calls[0].request.events == turn_service_pb2.EVENT_MODE_RAW
    assert capsysbinary.readouterr().out == payload + b"\n"
    assert saved.read_bytes() == user_item("Hi") + b"\n" + message_item("Hi") + b"\n"


async def test_calls_that_the_model_wants_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    async def step(call: Call) -> None:
        await call.send(admitted(), done(call_item("call_7", "look", '{"at":"Köln"}')), completed())

    async with scripted(step) as server:
        assert await command(server, "Hi") == 0

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith('call call_7: look {"at":"Köln"}\n')


async def test_incomplete_response_is_saved_and_has_its_own_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.jsonl"

    async def step(call: Call) -> None:
        await call.send(admitted(), text("Ha"), done(message_item("Ha")))
        await call.send(turn_service_pb2.Incomplete(response_id="r", reason="max_output_tokens"))

    async with scripted(step) as server:
        code = await command(server, "Hi", "--output", str(saved))

    assert code == 4
    assert "incomplete (max_output_tokens)" in capsys.readouterr().err
    assert saved.read_bytes().endswith(message_item("Ha") + b"\n")


@pytest.mark.parametrize(
    ("refusal", "code", "said"),
    [
        (
            Refusal(
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_REQUEST",
                details=[
                    error_details_pb2.BadRequest(
                        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="lane", description="no")]
                    )
                ],
            ),
            2,
            "lane: no",
        ),
        (Refusal(grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_UPSTREAM"), 2, "--upstream"),
        (Refusal(grpc.StatusCode.ALREADY_EXISTS, "SESSION_CONFIG_CONFLICT"), 2, "--attach"),
        (
            Refusal(
                grpc.StatusCode.FAILED_PRECONDITION,
                "CONTEXT_TOO_LONG",
                details=[errors_pb2.UpstreamError(message="at most 10 tokens")],
            ),
            1,
            "the provider says: at most 10 tokens",
        ),
        (Refusal(grpc.StatusCode.ABORTED, "LANE_BUSY"), 1, "--lane"),
        (Refusal(grpc.StatusCode.ABORTED, "UPSTREAM_IDLE"), 1, "nothing was saved"),
        (Refusal(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_FAILED"), 3, "UPSTREAM_FAILED"),
        (
            Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED", details=[retry_info(61)]),
            3,
            "try again in 61 s",
        ),
    ],
    ids=lambda value: value.reason if isinstance(value, Refusal) else None,
)
async def test_failure_says_what_to_do(
    refusal: Refusal, code: int, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    saved = tmp_path / "saved.jsonl"

    async with scripted(refuse(refusal)) as server:
        assert await command(server, "Hi", "--output", str(saved)) == code

    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"warmline turn: {refusal.reason}: scripted")
    assert said in printed.err
    assert not saved.exists()


async def test_loss_after_a_tool_call_saves_what_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "saved.jsonl"

    async def step(call: Call) -> None:
        await call.send(admitted(), done(call_item()))
        raise Refusal(grpc.StatusCode.ABORTED, "LOST_AFTER_TOOL_CALL")

    async with scripted(step) as server:
        assert await command(server, "Hi", "--output", str(saved)) == 1

    assert saved.read_bytes() == user_item("Hi") + b"\n" + call_item() + b"\n"
    assert "answer its calls" in capsys.readouterr().err


async def test_server_that_is_not_there_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    async with FakeServer() as gone:
        pass

    code = await command(gone, "Hi")

    assert code == 3
    assert "`warmline serve` starts one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give a prompt, or a conversation"),
        (["Hi", "--input", "missing.json"], "missing.json"),
        (["--input", "broken.json"], "malformed"),
        (["Hi", "--output", "taken.jsonl"], "it exists"),
        (["Hi", "--output", "nowhere/new.jsonl"], "no folder"),
        (["Hi", "--tools", "broken.json"], "malformed"),
        (["Hi", "--attach"], "--session"),
        (["Hi", "--token-file", "token", "--server", "warmline.example:1"], "plain text"),
        (["Hi", "--ca", "missing.pem"], "missing.pem"),
    ],
)
async def test_wrong_command_line_sends_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_bytes(b"[{]")
    (tmp_path / "taken.jsonl").write_bytes(b"{}")
    (tmp_path / "token").write_text("secret\n")

    async with FakeServer() as server:
        assert await command(server, *arguments) == 2

    assert server.calls == []
    assert said in capsys.readouterr().err


async def test_input_is_read_from_stdin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.write_bytes(EXPORTED)

    async with scripted(says("x")) as server:
        with given.open() as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            await command(server, "--input", "-")

    assert tuple(item.json for item in server.calls[0].request.input) == read_conversation(EXPORTED).items


async def test_token_file_is_shown_to_the_server(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")

    async with scripted(says("x")) as server:
        await command(server, "Hi", "--token-file", str(tmp_path / "token"))

    assert server.calls[0].metadata["authorization"] == "Bearer secret"


async def test_cancelled_command_cancels_the_turn() -> None:
    async def hangs(call: Call) -> None:
        await call.send(admitted(), text("first"))
        await call.wait_cancelled()

    async with scripted(hangs, closes=0) as server:
        running = asyncio.create_task(command(server, "Hi", "--session", "mine"))
        call = await server.wait_call("StreamTurn")
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await call.wait_ended()

    assert call.was_cancelled


PROGRAM = """
import argparse, asyncio, sys
from warmline_cli import turn
parser = argparse.ArgumentParser()
turn.add_arguments(parser)
sys.exit(asyncio.run(turn.run(parser.parse_args())))
"""


async def test_reader_of_stdout_that_goes_away_cancels_the_turn_without_a_word() -> None:
    is_gone = asyncio.Event()

    async def step(call: Call) -> None:
        await call.send(admitted(), text("first"))
        await is_gone.wait()
        await call.send(text("second"))
        await call.wait_cancelled()

    async with scripted(step, closes=0) as server:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, "Hi", "--server", server.target, "--session", "mine",
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert await process.stdout.read(5) == b"first"
        process.stdout._transport.close()  # type: ignore[attr-defined]
        is_gone.set()
        said = await process.stderr.read()
        code = await process.wait()
        await server.calls[0].wait_ended()

    assert (code, said) == (141, b"")
    assert server.calls[0].was_cancelled


def test_help_tells_the_exit_codes() -> None:
    parser = argparse.ArgumentParser()
    turn.add_arguments(parser)

    words = " ".join(parser.format_help().split())

    for code in (turn.COMPLETED, turn.FAILED, turn.WRONG, turn.UNAVAILABLE, turn.INCOMPLETE, turn.PIPE_CLOSED):
        assert f" {code} " in words.partition("Exit codes")[2].replace(":", " ")
