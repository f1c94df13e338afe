"""Runs one target under atheris: `python -m fuzz.target NAME [options of libFuzzer] [corpus …]`.

A target is a module of `fuzz/targets` with `CHECK`, the function that takes the bytes, and `seeds()`.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TARGETS = Path(__file__).parent / "targets"
INSTRUMENTED = ["warmline_server", "warmline_cli"]


@dataclass(frozen=True, slots=True)
class Target:
    """`seeds` are cases that get far, to start from."""

    name: str
    check: Callable[[bytes], None]
    seeds: Sequence[bytes]


def names() -> list[str]:
    """All targets, sorted."""
    return sorted(path.stem for path in TARGETS.glob("[!_]*.py"))


def load(name: str) -> Target:
    """Imports a target, and all that it reaches. Raises: ModuleNotFoundError."""
    module = importlib.import_module(f"fuzz.targets.{name}")
    return Target(name, module.CHECK, module.seeds())


def main() -> None:
    """Never returns: libFuzzer exits the process."""
    import atheris

    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=INSTRUMENTED):
        target = load(name)
    atheris.Setup([sys.argv[0], *options], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
