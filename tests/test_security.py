"""SECURITY.md names tests that are there."""

import re
from pathlib import Path

import pytest

from warmline_server.settings.load import all_keys

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text()
ROWS = re.findall(r"^\| (.+) \| (.+) \| ((?:`tests/[^`]+` ?)+)\|$", PAGE, re.MULTILINE)
NAMED = sorted({name for _, _, tests in ROWS for name in re.findall(r"`([^`]+)`", tests)})


def test_every_threat_has_a_defence_and_its_tests() -> None:
    table = PAGE.partition("| threat |")[2].partition("\n\n")[0]
    assert len(ROWS) == len(table.splitlines()) - 2
    assert len(ROWS) > 20


@pytest.mark.parametrize("name", NAMED)
def test_named_test_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    text = (ROOT / file).read_text()
    assert re.search(rf"^(async )?def {function or 'test_'}", text, re.MULTILINE)


def test_named_settings_are_there() -> None:
    keys = {key.rpartition(".")[2] for key in all_keys()} | set(all_keys())
    named = {name for name in re.findall(r"`([a-z_.]+)`", PAGE) if "_" in name}
    assert named <= keys
    assert named
