"""The simulator shares no code with what it tests."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

from warmline_simulator.settings import Settings, SettingsArguments

SERVER = Path(__file__).resolve().parents[2] / "server"


def imported_packages(folder: Path) -> dict[Path, set[str]]:
    found = {}
    for path in folder.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names.add(node.module.partition(".")[0])
        found[path] = names
    return found


def test_simulator_imports_nothing_of_the_server_or_the_client() -> None:
    found = imported_packages(SERVER / "warmline_simulator")

    assert len(found) > 20
    assert {path.name for path, names in found.items() if names & {"warmline_server", "warmline"}} == set()


def test_server_imports_nothing_of_the_simulator() -> None:
    found = imported_packages(SERVER / "warmline_server")

    assert found
    assert {path for path, names in found.items() if "warmline_simulator" in names} == set()


def test_simulator_arguments_are_the_settings() -> None:
    assert list(SettingsArguments.__annotations__) == [each.name for each in fields(Settings)]
