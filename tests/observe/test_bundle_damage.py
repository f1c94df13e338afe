"""Whatever is wrong with a bundle, replay either gives a state or names the damage."""

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from observe.bundle_kit import Log, assistant, reasoning, tool_call, tool_output, user
from warmline_server.observe.bundle.errors import ReplayError
from warmline_server.observe.bundle.reduce import replay

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
