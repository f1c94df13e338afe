"""Markers planted in everything that is another's, and searched for in everything that leaves the process about us."""

import asyncio
import io
import socket
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
import pytest

import warmline
from e2e.line import MODEL, hear, session_config, settings_for
from observe.spans import EndedSpans, attribute
from warmline_server.app import App
from warmline_server.observe import log_pipe
from warmline_server.settings import Credential, Telemetry
from warmline_simulator import Connection, Nothing, Reply, Script, Simulator, ev

MARK = "CANARY"
PROMPT, ANSWER, SECRET = f"{MARK}-prompt", f"{MARK}-answer", f"{MARK}-secret"
TOOL = {
    "type": "function",
    "name": "look",
    "description": f"{MARK}-tool-description",
    "parameters": {"type": "object", "properties": {}},
}


def _script() -> Script:
    """Answers, failures and headers, each with a marker of its own."""
    headers = {"x-codex-turn-state": f"{MARK}-turn-state", "x-strange": f"{MARK}-response-header"}
    thinking = ev.reasoning_response(f"{MARK}-summary", f"{MARK}-reasoning", encrypted_content=f"{MARK}-encrypted")
    return Script(
        connections=[
            Connection(
                headers=headers,
                replies=[
                    Reply(events=ev.text_response(ANSWER, response_id="resp-1")),
                    Reply(events=ev.function_call_response("look", f'{{"a":"{MARK}-arguments"}}', "call-1")),
                    Reply(events=thinking),
                    Reply(events=ev.failed_response("invalid_prompt", f"{MARK}-failed-words")),
                ],
            ),
            Connection(status=403, body={"error": {"message": f"{MARK}-handshake-words"}}, headers=headers),
        ],
        posts=[
            Reply(status=400, body={"error": {"message": f"{MARK}-refusal", "code": "bad"}}, headers=headers),
            Reply(events=[ev.created("resp-9"), *ev.text_response(ANSWER)[1:4], f"{MARK} no JSON", Nothing()]),
        ],
    )


async def _life(client: warmline.Client) -> list[str]:
    """Calls that meet every reply of the script. Returns: the provider's words that their callers were told."""
    ended = []
    options: dict[str, Any] = {"model": MODEL, "instructions": f"{MARK}-instructions", "tools": [TOOL]}
    metadata = msgspec.json.encode({"note": f"{MARK}-turn-metadata"})
    async with client.session("warm", session_config(retries=0), **options) as session:
        await session.preconnect(wait=True)
        for number in range(4):
            ended.append(await hear(session.turn(f"{PROMPT} {number}", turn_metadata=metadata)))
    async with client.session("cold", session_config(warm_up="none", retries=0), **options) as session:
        ended.append(await hear(session.turn(PROMPT)))
    config = session_config(fallback_policy={"http_only": True}, retries=0, request_retries=0)
    async with client.session("http", config, **options) as session:
        for _ in range(2):
            ended.append(await hear(session.turn([PROMPT], request_json=b'{"user":"CANARY-user"}')))
    return [heard.error.upstream.message for heard in ended if heard.error is not None and heard.error.upstream]


class Sinks:
    """Everything that was written about a life, as one text each."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.spans = EndedSpans()
        self.told: list[str] = []

    def chats(self) -> list[dict[str, object]]:
        named = self.spans.named(f"chat {MODEL}")
        return [
            {name: attribute(span, name) for name in ("warmline.content.request", "warmline.content.output")}
            for span in named
        ]


async def _live(tmp_path: Path, capsys: pytest.CaptureFixture[str], **telemetry: Any) -> Sinks:
    (tmp_path / "secret").write_text(SECRET)
    profile = {
        "credential": Credential(source="file", file=str(tmp_path / "secret")),
        "extra_headers": {"X-Extra": f"{MARK}-request-header"},
    }
    sinks, log, scraped = Sinks(), io.StringIO(), _free_address()
    pipe = log_pipe.configure("json", "debug", stream=log)
    try:
        async with Simulator(_script(), expect_violations=True) as sim:
            settings = msgspec.structs.replace(
                settings_for(sim.base_url, profile=profile),
                telemetry=Telemetry(traces=("console",), prometheus_listen=scraped, genai_metrics="both", **telemetry),
            )
            app = App(settings, span_processors=[sinks.spans])
            async with app, warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client:
                sinks.told = await _life(client)
                sinks.texts["metrics"] = await _scrape(scraped)
                sinks.texts["ring"] = str([i async for i in client.session("warm", start="attach").list_inferences()])
            sent = "".join(str(request.body) for request in sim.requests)
            assert all(f"{MARK}-{word}" in sent for word in ("prompt", "instructions", "tool-description", "user"))
            assert SECRET in str(sim.requests[0].headers) + str(sim.handshakes[0].headers), "the secret was in use"
    finally:
        pipe.close()
    sinks.texts["logs"] = log.getvalue()
    sinks.texts["spans"] = "\n".join(span.to_json() for span in sinks.spans.spans)
    sinks.texts["console"] = capsys.readouterr().out
    return sinks


def _free_address() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


async def _scrape(address: str) -> str:
    url = f"http://{address}/metrics"

    def read() -> str:
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())

    return await asyncio.to_thread(read)


async def test_no_marker_is_in_any_span_metric_log_or_ring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    sinks = await _live(tmp_path, capsys)

    assert all(text for text in sinks.texts.values()), "every sink was in use"
    found = {sink: text[max(0, text.index(MARK) - 200) :][:300] for sink, text in sinks.texts.items() if MARK in text}
    assert found == {}


async def test_providers_words_reach_their_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The markers of refusals were really on their way, and the one who caused them has them."""
    sinks = await _live(tmp_path, capsys)

    assert sinks.told == [f"{MARK}-failed-words", f"{MARK}-handshake-words", f"{MARK}-refusal"]


async def test_captured_content_is_capped_and_holds_no_credential(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sinks = await _live(tmp_path, capsys, capture_content=True, content_max_bytes=300)

    captured = [str(value) for chat in sinks.chats() for value in chat.values()]
    assert any(PROMPT in text or f"{MARK}-instructions" in text for text in captured)
    assert any(ANSWER in text for text in captured)
    assert max(len(text.encode()) for text in captured) <= 300
    for sink in ("metrics", "logs", "ring"):
        assert MARK not in sinks.texts[sink]
    for word in ("secret", "request-header", "response-header", "failed-words", "refusal", "handshake-words"):
        assert f"{MARK}-{word}" not in "".join(sinks.texts.values())
