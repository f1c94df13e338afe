"""Plays the scenarios of client_stubs/scenarios with the runners of the languages, and prints a table.

PYTHONPATH=tests .venv/bin/python -m interop.harness [--language NAME] [--scenario NAME] [--write] [--verbose]
"""

import argparse
import asyncio
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop import certificates, checks, languages, report, scenario
from interop.control import open_control
from interop.languages import Language
from interop.scenario import Scenario
from interop.world import FakeWorld, RealWorld, open_world

# Longest run of one scenario. A choice: ten times what the slowest takes.
RUN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How one scenario went in one language; `failures` is empty when it went well."""

    language: str
    scenario: str
    failures: tuple[str, ...]
    versions: str = ""
    """What the runner says it is made of."""
    duration_s: float = 0.0
    cancel_s: Mapping[str, float] = field(default_factory=dict)
    """From leaving a turn to the upstream's end, by the turn's name, for each that was left."""
    stderr: str = ""


@dataclass(slots=True)
class Results:
    """What was played, and what was not."""

    outcomes: list[Outcome] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """Why a language was not tried, by name."""
    broken: dict[str, str] = field(default_factory=dict)
    """Why a language's runner could not be built, by name."""
    build_s: dict[str, float] = field(default_factory=dict)

    @property
    def languages(self) -> list[str]:
        """Every language that was wanted, in the table's order."""
        names = {*(outcome.language for outcome in self.outcomes), *self.skipped, *self.broken}
        return [name for name in languages.present() if name in names]

    def is_good(self, *, is_ci: bool) -> bool:
        """Whether every language did all that it shall; in CI none may be skipped."""
        failed = any(outcome.failures for outcome in self.outcomes)
        return not (failed or self.broken or (is_ci and self.skipped))


@dataclass(slots=True)
class _Marks:
    """When runners said that they would leave a turn now."""

    cancels_at_s: list[float] = field(default_factory=list)


async def play(played: Scenario, language: Language, folder: Path) -> Outcome:
    """Plays one scenario. Args: `folder` has the certificates of `certificates.make`, and room for files."""
    marks, started_at_s = _Marks(), time.monotonic()
    async with open_world(played, folder) as world, open_control(_handler(world, marks)) as control:
        told, stderr = await _run(played, language, world.address, control, folder)
        failures = [] if told.get("ok") is True else [str(told.get("failure"))]
        failures += await checks.problems(played, world, told.get("turns") or {})
        aborted_at_s = world.aborted_at_s
    return Outcome(
        language=language.name,
        scenario=played.name,
        failures=tuple(failures),
        versions=str(told.get("language", "")),
        duration_s=time.monotonic() - started_at_s,
        cancel_s={
            turn: end - start
            for turn, start, end in zip(left_turns(played), marks.cancels_at_s, aborted_at_s, strict=False)
        },
        stderr=stderr,
    )


def left_turns(played: Scenario) -> list[str]:
    """The turns that a scenario leaves early, in order."""
    return [step["cancel"]["turn"] for step in played.steps if "cancel" in step]


async def play_all(
    played: Sequence[str], wanted: Sequence[Language], *, on_outcome: Callable[[Outcome], None] = lambda outcome: None
) -> Results:
    """Plays scenarios with languages, one after another; a language that cannot be had does not stop the others."""
    results = Results()
    with tempfile.TemporaryDirectory(prefix="warmline-interop-") as scratch:
        folder = Path(scratch)
        certificates.make(folder)
        for language in wanted:
            if language.missing:
                results.skipped[language.name] = f"this machine has no {', '.join(language.missing)}"
                continue
            started_at_s = time.monotonic()
            try:
                await languages.build(language)
            except languages.BuildError as error:
                results.broken[language.name] = str(error)
                continue
            results.build_s[language.name] = time.monotonic() - started_at_s
            for name in played:
                results.outcomes.append(await play(scenario.load(name, folder), language, folder))
                on_outcome(results.outcomes[-1])
    return results


async def _run(
    played: Scenario, language: Language, address: str, control: str, folder: Path
) -> tuple[Mapping[str, Any], str]:
    """Runs the runner: what it printed, and what it said besides. Never raises for what the runner does."""
    file = folder / f"{played.name}.json"
    file.write_bytes(played.for_runner(folder))
    words = (*language.run, "--address", address, "--scenario", str(file), "--control", control)
    process = await asyncio.create_subprocess_exec(
        *words, cwd=language.cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(RUN_S):
            printed, said = await process.communicate()
    except TimeoutError:
        return {"failure": f"the runner took longer than {RUN_S:.0f} s"}, ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _read(printed, process.returncode or 0), said.decode(errors="replace")


def _read(printed: bytes, returncode: int) -> Mapping[str, Any]:
    lines = printed.decode(errors="replace").strip().splitlines()
    try:
        told = json.loads(lines[-1]) if len(lines) == 1 else None
    except ValueError:
        told = None
    if isinstance(told, dict):
        return told
    return {"failure": f"the runner printed {lines[:3]!r} and exited with {returncode}; expected one JSON object"}


def _handler(world: RealWorld | FakeWorld, marks: _Marks) -> Any:
    async def handle(path: list[str], query: Mapping[str, str]) -> Mapping[str, Any]:
        if path == ["mark", "cancel"]:
            marks.cancels_at_s.append(world.now_s())
            return {}
        return await world.act(path[0] if path else "", path[1:], query)

    return handle


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="interop.harness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--language", action="append", choices=list(languages.present()), help="default: all present")
    parser.add_argument("--scenario", action="append", choices=scenario.names(), help="default: all")
    parser.add_argument("--write", action="store_true", help="write docs/interop.md")
    parser.add_argument("--verbose", action="store_true", help="print what runners say on stderr")
    return parser.parse_args()


def main() -> int:
    """The command. Returns: 0 when everything went well; a missing toolchain is told, and in CI is a failure."""
    args = _arguments()
    if not args.verbose:
        # The server and gRPC run in this process, too; what they say of calls that shall fail is no news.
        logging.getLogger().addHandler(logging.NullHandler())
    there = languages.present()
    wanted = [there[name] for name in args.language or there]

    def tell(outcome: Outcome) -> None:
        print(report.line(outcome), flush=True)
        if args.verbose and outcome.stderr:
            print(outcome.stderr, file=sys.stderr)

    results = asyncio.run(play_all(args.scenario or scenario.names(), wanted, on_outcome=tell))
    print(f"\n{report.table(results)}\n\n{report.summary(results)}")
    if args.write:
        report.write(results)
    return 0 if results.is_good(is_ci=os.environ.get("CI") == "true") else 1


if __name__ == "__main__":
    sys.exit(main())
