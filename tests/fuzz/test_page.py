"""docs/foreign-bytes.md says what the code says."""

import importlib
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from warmline_server.settings import UpstreamProfile
from warmline_server.transport.http_exchange import HttpLimits

PAGE = Path(__file__).resolve().parents[2] / "docs" / "foreign-bytes.md"
ROWS = re.findall(r"^\| .+ \| ([^|]+) \| `([^`]+)` \|$", PAGE.read_text(), re.MULTILINE)
UNITS = {"MiB": 1024**2, "GiB": 1024**3}


def in_code(place: str) -> Any:
    """The value of a constant, or the default of a setting."""
    owner, _, name = place.rpartition(".")
    if owner == "upstreams.NAME":
        return next(field.default for field in msgspec.structs.fields(UpstreamProfile) if field.name == name)
    if owner == "HttpLimits":
        return getattr(HttpLimits(), name)
    return getattr(importlib.import_module(f"warmline_server.{owner}"), name)


def test_page_has_its_rows() -> None:
    assert len(ROWS) > 25


@pytest.mark.parametrize(("shown", "place"), ROWS, ids=[place for _, place in ROWS])
def test_row_is_the_value_in_the_code(shown: str, place: str) -> None:
    number, _, unit = shown.partition(" ")

    assert float(number) * UNITS.get(unit, 1) == in_code(place)
