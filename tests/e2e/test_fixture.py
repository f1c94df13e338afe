"""An upstream that is a file of server-sent events."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import warmline
from warmline_server.app import App
from warmline_server.settings import Settings, UpstreamProfile
from warmline_server.transport import fixture
from warmline_simulator import ev


def events_file(folder: Path, *, whole: bool = True) -> Path:
    """A recorded answer, with or without its end."""
    events = ev.text_response("from a file", response_id="resp-1")
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events[: None if whole else -1]]
    path = folder / "answer.sse"
    path.write_text("".join(lines))
    return path


def settings(path: Path) -> Settings:
    profile = UpstreamProfile(kind="fixture", fixture_path=str(path), stream_max_retries=0, request_max_retries=0)
    return Settings(listen="127.0.0.1:0", default_upstream="file", upstreams={"file": profile})


@asynccontextmanager
async def played(path: Path) -> AsyncIterator[warmline.Session]:
    """A session of a server whose upstream is the file."""
    async with (
        App(settings(path)) as app,
        warmline.Client(app.address, retry=warmline.CallRetry(max_tries=1)) as client,
        client.session("s", model="any") as session,
    ):
        yield session


async def test_fixture_upstream_plays_its_file_again_for_each_turn(tmp_path: Path) -> None:
    async with played(events_file(tmp_path)) as session:
        for _ in range(2):
            async with session.turn("hello") as turn:
                result = await turn.result()
            assert (result.text, result.response_id, result.transport) == ("from a file", "resp-1", "FIXTURE")


async def test_fixture_without_its_end_ends_as_a_lost_stream(tmp_path: Path) -> None:
    async with played(events_file(tmp_path, whole=False)) as session, session.turn("hello") as turn:
        with pytest.raises(warmline.WarmlineError) as told:
            await turn.result()

    assert told.value.reason == "UPSTREAM_STREAM_LOST"


async def test_fixture_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    async with played(tmp_path / "gone.sse") as session, session.turn("hello") as turn:
        with pytest.raises(warmline.UnavailableError, match=r"gone\.sse"):
            await turn.result()


async def test_file_beyond_its_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixture, "MAX_FILE_BYTES", 100)
    async with played(events_file(tmp_path)) as session:
        with pytest.raises(warmline.WarmlineError, match="has more than 100 bytes"):
            async with session.turn("hello") as turn:
                await turn.result()
