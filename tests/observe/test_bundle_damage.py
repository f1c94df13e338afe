"""Whatever is wrong with a bundle, replay either gives a state or names the damage."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observe.bundle_kit import Log, assistant, reasoning, texts, tool_call, tool_output, user
from warmline_server.observe import waterfall_text
from warmline_server.observe.bundle import read
from warmline_server.observe.bundle.errors import Damage, ReplayError
from warmline_server.observe.bundle.read import MAX_LINE_BYTES
from warmline_server.observe.bundle.reduce import replay
from warmline_server.observe.bundle.state import encode
from warmline_server.observe.waterfall import turns_of

STRANGE: list[Any] = [None, True, -1, 2**70, 0.5, "", "x", [], [[]], {}, {"type": []}, {"type": {}}, [None], [1]]


def _bundle(path: Path) -> None:
    log = Log(path)
    log.start("1", [user("hi"), reasoning("enc", text="hm", summary="s")])
    log.complete("1", [tool_call("c1"), assistant("hello")], response_id="resp-1", upstream_request_id="req-1")
    log.start("2", [tool_output("c1")], previous="resp-1")
    log.cancel("2", [assistant("par")], upstream_request_id="req-2")
    log.end_turn()


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key within a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, Any]] = []
    for key, inner in pairs:
        found += [(value, key), *_places(inner)]
    return found


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_strange_value_anywhere_is_read_or_named(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bundle"
        _bundle(path)
        file = data.draw(st.sampled_from(sorted([*path.glob("*.json*"), *path.glob("payloads/*.json")])))
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        container, key = data.draw(st.sampled_from(_places(lines)))
        container[key] = data.draw(st.sampled_from(STRANGE))
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))

        with contextlib.suppress(ReplayError):
            replay(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_broken_bytes_anywhere_are_read_or_named(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "bundle"
        _bundle(path)
        file = data.draw(st.sampled_from(sorted([*path.glob("*.json*"), *path.glob("payloads/*.json")])))
        content = bytearray(file.read_bytes())
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=8))
        file.write_bytes(content)

        with contextlib.suppress(ReplayError):
            replay(path)


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("file", "content", "damage"),
    [
        ("payloads/1.json", '{"input":[{"type":"compaction","a":' + deep(900) + "}]}", Damage.BAD_PAYLOAD),
        ("trace.jsonl", '{"a":' + deep(5000) + "}\n", Damage.BAD_EVENT),
        ("trace.jsonl", " " * (MAX_LINE_BYTES + 1) + "\n", Damage.BAD_EVENT),
        ("manifest.json", '{"a":' + deep(5000) + "}", Damage.BAD_MANIFEST),
    ],
    ids=["payload too deep", "event too deep", "line too long", "manifest too deep"],
)
def test_what_no_writer_makes_is_named(tmp_path: Path, file: str, content: str, damage: Damage) -> None:
    path = tmp_path / "bundle"
    _bundle(path)
    (path / file).write_text(content)

    with pytest.raises(ReplayError) as caught:
        replay(path)

    assert caught.value.damage is damage


def test_payload_beyond_its_size_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bundle"
    _bundle(path)
    monkeypatch.setattr(read, "MAX_PAYLOAD_BYTES", 10)

    with pytest.raises(ReplayError, match="more than 10 bytes") as caught:
        replay(path)

    assert caught.value.damage is Damage.BAD_PAYLOAD


def test_json_in_arguments_that_is_too_deep_is_compared_as_text(tmp_path: Path) -> None:
    log = Log(tmp_path / "bundle")
    log.start("1", [tool_call("c1", arguments=deep(900)), tool_output("c1")])

    state = log.replay()

    assert encode(state)
    assert deep(900) in texts(state, state.inference_calls["1"].request_item_ids)[0]


def test_drawing_obeys_no_control_character_of_a_bundle(tmp_path: Path) -> None:
    log = Log(tmp_path / "bundle", started=False)
    facts = {"request_id": "q", "turn_id": "t\x1b[2J", "lane": "\x07", "started_unix_ns": 5}
    log.event("other", fact={"kind": "warmline.call_started", **facts})
    log.event(
        "other",
        fact={
            "kind": "warmline.call_ended",
            "request_id": "q",
            "ended_unix_ns": 9,
            "outcome": "\x1b]0;x",
            "reason": "\n",
        },
    )

    drawn = waterfall_text.draw(turns_of(log.replay()), 80)

    assert "\x1b" not in drawn
    assert r"turn t\x1b[2J  lane \x07" in drawn
    assert r"reason=\n" in drawn
