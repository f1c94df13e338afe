"""`warmline turn` over the whole line: a conversation goes up, and what comes back goes up again, byte for byte."""

import argparse
import json
from pathlib import Path

import pytest

from e2e.line import Line, open_line
from warmline_cli import turn
from warmline_simulator import Reply, Script

# As a person's export looks: indented, with escapes, numbers and line ends that writing it anew would change.
ITEMS = (
    b"""{"type": "message", "role": "user", "content": [
    {"type": "input_text", "text": "What is in K\\u00f6ln? \xe2\x98\x80 \\/"},
    {"type": "input_image", "image_url": "https://images.example/a.png?w=1&h=2", "detail": "auto"}
  ]}""",
    b'{"type":"reasoning","id":"rs_1","summary":[ ],"encrypted_content":"gAAAAABo+/zz=="}',
    b'{"id":"fc_1","type":"function_call","call_id":"call_1","name":"look","arguments":"{\\"zoom\\": 1.0}"}',
    b'{"type":"function_call_output", "call_id":"call_1", "output":"9007199254740993"}',
    b'{"type":"message","role":"assistant","content":[{"type":"output_text","text":"A cathedral.","annotations":[]}]}',
    b'{"type":"message","role":"user","content":[{"type":"input_text","text":"And now?"}]}',
)
EXPORTED = b"[\n  " + b",\n  ".join(ITEMS) + b"\n]\n"

ANSWERED = (
    '{"id":"rs_2","type":"reasoning", "summary":[], "encrypted_content":"gBBB\\u002b=="}',
    '{"id":"msg_2","type":"message","status":"completed","role":"assistant",'
    '"content":[{"type":"output_text","text":"The Rhine \\u2014 wide ☀","annotations":[ ]}]}',
)


def answer(response_id: str) -> list[str]:
    """The events of a response, spelt out so that their bytes are known."""
    return [
        f'{{"type":"response.created","response":{{"id":"{response_id}"}}}}',
        *(f'{{"type":"response.output_item.done","output_index":0,"item":{item}}}' for item in ANSWERED),
        f'{{"type":"response.completed","response":{{"id":"{response_id}","usage":null}}}}',
    ]


async def command(line: Line, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    turn.add_arguments(parser)
    return await turn.run(parser.parse_args(["--server", line.app.address, "--model", "sim-small", *arguments]))


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_exported_conversation_goes_up_and_comes_back_byte_for_byte(
    transport: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported, saved = tmp_path / "exported.json", tmp_path / "saved.jsonl"
    exported.write_bytes(EXPORTED)
    replies = [Reply(events=answer("resp_1")), Reply(events=answer("resp_2"))]
    script = Script(creates=replies) if transport == "ws" else Script(posts=replies)

    async with open_line(script, refuse_upgrades=None if transport == "ws" else 426) as line:
        assert await command(line, "--input", str(exported), "--output", str(saved)) == 0
        assert await command(line, "More.", "--input", str(saved), "--output", str(saved)) == 0
        first, second = line.sim.requests

    more = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"More."}]}'
    answered = tuple(item.encode() for item in ANSWERED)
    assert [record.transport for record in (first, second)] == [transport, transport]
    assert b'"input":[' + b",".join(ITEMS) + b"]" in first.raw
    assert b'"input":[' + b",".join((*ITEMS, *answered, more)) + b"]" in second.raw
    assert saved.read_bytes() == b"".join(item + b"\n" for item in (*ITEMS, *answered, more, *answered))
    upstream_request = "unknown (WebSocket)" if transport == "ws" else str(second.request_id)
    assert f"response resp_2, upstream request {upstream_request}," in capsys.readouterr().err


async def test_json_has_the_providers_events_as_they_came(capsys: pytest.CaptureFixture[str]) -> None:
    events = answer("resp_1")

    async with open_line(Script(creates=[Reply(events=events)])) as line:
        assert await command(line, "Hi", "--json") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.partition('"payload":')[2] for line in lines if '"payload":' in line] == [f"{e}}}" for e in events]
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, len(lines) + 1))
    assert json.loads(lines[-1])["data"]["response_id"] == "resp_1"


async def test_named_session_goes_on_where_it_was(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    saved = tmp_path / "saved.jsonl"

    async with open_line() as line:
        await command(line, "Hello.", "--session", "mine", "--output", str(saved))
        await command(line, "Again.", "--session", "mine", "--input", str(saved), "--output", str(saved))
        handshakes, requests = len(line.sim.handshakes), line.sim.requests

    said = capsys.readouterr().err.splitlines()
    assert handshakes == 1
    assert [len(record.body["input"]) for record in requests] == [1, 1]
    assert requests[1].body["previous_response_id"] == requests[0].response_id
    assert "slot REUSED" in said[1]
    for record, words in zip(requests, said, strict=True):
        assert f"response {record.response_id}," in words


async def test_item_that_is_no_item_is_told_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "given.json"
    given.write_bytes(b'[{"type":"function_call_output","call_id":"call_9","output":"x"}]')

    async with open_line() as line:
        code = await command(line, "--input", str(given))
        requests = len(line.sim.requests)

    assert (code, requests) == (2, 0)
    assert "INVALID_REQUEST" in capsys.readouterr().err


async def test_missing_model_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    turn.add_arguments(parser)

    async with open_line() as line:
        code = await turn.run(parser.parse_args(["--server", line.app.address, "Hi"]))

    assert code == 2
    assert "give --model" in capsys.readouterr().err


async def test_upstream_that_nobody_configured_is_told_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    async with open_line() as line:
        code = await command(line, "Hi", "--upstream", "nowhere")

    assert code == 2
    said = capsys.readouterr().err
    assert "UNKNOWN_UPSTREAM" in said
    assert "--upstream" in said
