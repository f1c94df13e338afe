"""`warmline trace` on bundles that a real server wrote, and on the server itself."""

import argparse
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from e2e.line import MODEL, hear, session_config
from e2e.test_trace_paths import Traced, traced_line
from warmline_cli import trace
from warmline_simulator import Connection, Reply, Script, ev


async def _run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    trace.add_arguments(parser)
    return await trace.run(parser.parse_args(words))


async def _two_turns(line: Traced) -> None:
    """A turn on the warmed socket, and one that is refused over HTTP and then answered."""
    async with line.client.session("s-1", session_config(retries=0), model=MODEL) as session:
        await session.preconnect(wait=True)
        await hear(session.turn("hello", turn_id="turn-1"))
    config = session_config(fallback_policy={"http_only": True}, retries=1, request_retries=1)
    async with line.client.session("s-2", config, model=MODEL) as session:
        await hear(session.turn("hello", turn_id="turn-2"))


def _script() -> Script:
    words = ev.text_response("hi", response_id="resp-1")
    return Script(
        connections=[Connection(replies=[Reply(events=words)])],
        posts=[Reply(status=500), Reply(events=ev.text_response("ho", response_id="resp-2"))],
    )


def _json(path: Path) -> Any:
    return json.loads(path.read_text())


class Recorded:
    """The bundles of two sessions, and the ids that the simulator gave."""

    def __init__(self, root: Path, refused: str, answered: str, handshake: str) -> None:
        self.root = root
        self.refused, self.answered, self.handshake = refused, answered, handshake

    def bundle(self, session_id: str) -> str:
        (path,) = self.root.glob(f"{session_id}-*")
        return str(path)


@pytest.fixture
async def recorded(tmp_path: Path) -> Recorded:
    async with traced_line(tmp_path, _script()) as line:
        await _two_turns(line)
        refused, answered = (request.request_id or "" for request in line.sim.posts())
        handshake = line.handshake_id
    return Recorded(line.root, refused, answered, handshake)


async def test_reduce_writes_the_state_into_the_bundle(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = recorded.bundle("s-2")

    assert await _run("reduce", bundle) == 0

    path = Path(capsys.readouterr().out.strip())
    assert path == Path(bundle) / "state.json"
    state = _json(path)
    assert state["schema_version"] == 1
    found = [(c["execution"]["status"], c.get("response_id")) for c in state["inference_calls"].values()]
    assert found == [("failed", None), ("completed", "resp-2")]


async def test_reduce_prints_the_state_on_request(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert await _run("reduce", recorded.bundle("s-1"), "--output", "-") == 0

    assert json.loads(capsys.readouterr().out)["rollout_id"] == "s-1"


async def test_damaged_bundle_is_told_with_name_and_line(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Path(recorded.bundle("s-1")) / "trace.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:3]) + lines[3][:30])

    assert await _run("reduce", recorded.bundle("s-1")) == 2

    assert capsys.readouterr().err.startswith("warmline trace reduce: line 4: truncated_line: ")


async def test_show_draws_calls_connects_and_attempts_on_one_scale(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await _run("show", recorded.bundle("s-1"), "--width", "100") == 0

    text = capsys.readouterr().out
    assert text.startswith("turn turn-1  ")
    bars = [line for line in text.splitlines() if "|" in line]
    assert [re.split(r" {2,}|\|", bar.strip())[0].split()[0] for bar in bars] == ["call", "preconnect", "attempt"]
    assert len({bar.index("|", bar.index("|") + 1) for bar in bars}) == 1
    for fact in ("response_id=resp-1", "upstream_request_id=unknown (WebSocket)", "slot=adopted"):
        assert fact in text
    assert f"upstream_handshake_request_id={recorded.handshake}" in text


async def test_show_marks_the_failure_and_its_reason(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    await _run("show", recorded.bundle("s-2"), "--turn", "turn-2", "--width", "80")

    text = capsys.readouterr().out
    failed = next(line for line in text.splitlines() if "attempt 1" in line)
    assert "✗" in failed
    assert failed.rstrip().endswith("failed")
    assert f"upstream_request_id={recorded.refused}" in text
    assert "reason=UPSTREAM_FAILED" in text
    assert f"upstream_request_id={recorded.answered}" in text
    assert all(len(line) <= 80 for line in text.splitlines() if "|" not in line)


class _Page(HTMLParser):
    """Collects what a browser would fetch or run, and the texts."""

    def __init__(self) -> None:
        super().__init__()
        self.outside: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        if tag in ("script", "link", "img", "iframe") or names & {"src", "href"}:
            self.outside.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_html_is_one_page_that_fetches_nothing(recorded: Recorded, tmp_path: Path) -> None:
    page = tmp_path / "turn.html"

    assert await _run("show", recorded.bundle("s-2"), "--html", str(page)) == 0

    parsed = _Page()
    parsed.feed(page.read_text())
    assert parsed.outside == []
    assert "url(" not in page.read_text()
    assert "@import" not in page.read_text()
    assert f"upstream_request_id={recorded.answered}" in parsed.text


@pytest.mark.parametrize("which", ["response", "answered", "refused", "handshake"])
async def test_find_takes_every_id_to_the_inference_and_its_payloads(
    recorded: Recorded, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    wanted = "resp-2" if which == "response" else getattr(recorded, which)

    assert await _run("find", wanted, "--bundles", str(recorded.root)) == 0

    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.strip())
    assert found["session"] == ("s-1" if which == "handshake" else "s-2")
    assert found["status"] == ("failed" if which == "refused" else "completed")
    asked = _json(Path(found["asked"]))
    assert asked["input"][0]["role"] == "user"
    if which != "refused":
        assert _json(Path(found["answered"]))["response_id"] == found["response_id"]


async def test_find_says_when_an_id_is_unknown(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert await _run("find", "resp-9", "--bundles", str(recorded.root)) == 1

    assert "resp-9 is not known here" in capsys.readouterr().err


async def test_find_passes_over_a_damaged_bundle(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    log = Path(recorded.bundle("s-1")) / "trace.jsonl"
    log.write_text(log.read_text() + "resp-2\n")

    assert await _run("find", "resp-2", "--bundles", str(recorded.root)) == 0

    captured = capsys.readouterr()
    assert "bad_event" in captured.err
    assert "s-2" in captured.out


async def test_running_server_is_shown_and_searched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    over_http = session_config(fallback_policy={"http_only": True}, retries=1, request_retries=1)
    async with (
        traced_line(tmp_path, _script()) as line,
        line.client.session("s-1", session_config(retries=0), model=MODEL) as session,
        line.client.session("s-2", over_http, model=MODEL) as other,
    ):
        await session.preconnect(wait=True)
        await hear(session.turn("hello", turn_id="turn-1"))
        await hear(other.turn("hello", turn_id="turn-2"))
        statuses = [
            await _run("show", "--session", "s-2", "--server", line.app.address, "--width", "100"),
            await _run("find", line.sim.posts()[1].request_id or "", "--server", line.app.address),
            await _run("find", "resp-1", "--server", line.app.address),
            await _run("find", line.handshake_id, "--server", line.app.address),
            await _run("find", "resp-9", "--server", line.app.address),
            await _run("show", "--session", "nobody", "--server", line.app.address),
        ]

    captured = capsys.readouterr()
    assert statuses == [0, 0, 0, 0, 1, 2]
    assert [line.split()[0] for line in captured.out.splitlines() if "|" in line] == ["call", "attempt", "attempt"]
    assert "response_id  resp-2" in captured.out
    assert captured.out.count("response_id  resp-1") == 2
    assert "SESSION_NOT_FOUND" in captured.err


@pytest.mark.parametrize("words", [["show"], ["show", "x", "--session", "y"]])
async def test_show_wants_exactly_one_source(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert await _run(*words) == 2

    assert "--session" in capsys.readouterr().err


async def test_directory_without_a_bundle_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await _run("show", str(tmp_path)) == 2

    assert "no_bundle" in capsys.readouterr().err


async def test_unknown_turn_is_told(recorded: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    assert await _run("show", recorded.bundle("s-1"), "--turn", "turn-9") == 1

    assert "no turn turn-9" in capsys.readouterr().err
