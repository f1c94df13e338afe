"""The contract keeps its promises: linted, unbroken, and its reasons are the server's."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from warmline.v1 import errors_pb2
from warmline_server.core.errors import Reason
from warmline_server.rpc.status import CODES

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.prefix) / "bin" / "buf"
PREFIX = "ERROR_REASON_"


def buf(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([BUF, *arguments], capture_output=True, text=True, cwd=ROOT)


def breaking(protos: Path) -> "subprocess.CompletedProcess[str]":
    return buf("breaking", protos, "--against", ROOT / "protos" / "warmline.v1.binpb")


def without(text: str, line: str) -> str:
    """The text without its one line that begins so, and without the comment above it."""
    lines = text.splitlines(keepends=True)
    (at,) = [index for index, each in enumerate(lines) if each.strip().startswith(line)]
    first = at
    while lines[first - 1].strip().startswith("//"):
        first -= 1
    return "".join(lines[:first] + lines[at + 1 :])


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contract, to be broken."""
    return shutil.copytree(ROOT / "protos", tmp_path / "protos")


def test_reasons_are_those_of_the_contract() -> None:
    names = [value.name.removeprefix(PREFIX) for value in errors_pb2.ErrorReason.DESCRIPTOR.values if value.number]

    assert sorted(names) == sorted(reason.name for reason in Reason)
    assert [reason.value for reason in Reason] == [reason.name for reason in Reason]


def test_every_reason_has_a_code() -> None:
    assert set(CODES) == set(Reason)


def test_contract_passes_the_linter() -> None:
    found = buf("lint", "protos")

    assert (found.returncode, found.stdout) == (0, "")


def test_contract_is_formatted() -> None:
    found = buf("format", "--diff", "--exit-code", "protos")

    assert (found.returncode, found.stdout) == (0, "")


def test_contract_breaks_nothing_that_was_promised() -> None:
    found = breaking(ROOT / "protos")

    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize(
    ("file", "line", "told"),
    [
        ("types.proto", "string role = 1;", 'Previously present field "1" with name "role" on message "TextMessage"'),
        ("errors.proto", "ERROR_REASON_INVALID_REQUEST = 1;", 'Previously present enum value "1"'),
        ("turn_service.proto", "rpc CancelTurn(", 'Previously present RPC "CancelTurn"'),
    ],
    ids=["field", "reason", "rpc"],
)
def test_contract_that_lost_something_is_found_broken(protos: Path, file: str, line: str, told: str) -> None:
    path = protos / "warmline" / "v1" / file
    path.write_text(without(path.read_text(), line))

    found = breaking(protos)

    assert found.returncode != 0
    assert told in found.stdout


def test_contract_with_a_field_that_says_nothing_fails_the_linter(protos: Path) -> None:
    path = protos / "warmline" / "v1" / "types.proto"
    path.write_text(path.read_text() + "\n// Something.\nmessage Extra {\n  string mute = 1;\n}\n")

    found = buf("lint", protos)

    assert found.returncode != 0
    assert 'Field "mute" should have a non-empty comment' in found.stdout
