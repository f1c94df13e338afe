"""Breaks the code in named ways, and sees the tests fail that are said to guard it.

Each `[[mutation]]` of tests/mutations/GROUP.toml has a `name`, a `file`, the text to `find` in it (once) and what to
`replace` it with, and the `tests` that must fail then, each of them. They run in a copy of the tree, so the tree itself
is never touched; first all of them run in a copy that is not broken, and must pass. `--check` runs nothing: it says
which mutations no longer fit the code or name tests that are gone.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = (
    "server",
    "client_stubs/python",
    "tests",
    "protos",
    "scripts",
    "docs",
    "deploy",
    "pyproject.toml",
    "Makefile",
    "Dockerfile",
)
# Where the copy's own packages are imported from, before the environment's editable install of this tree.
SOURCES = ("server", "client_stubs/python")
PACKAGES = ("warmline", "warmline_cli", "warmline_server", "warmline_simulator")
# A broken program may hang; its test then fails by this limit.
TEST_TIMEOUT_S = 15
ALL_TIMEOUT_S = 900

PASSED, FAILED = 0, 1  # exit codes of pytest; all others mean that it could not run the tests


@dataclass(frozen=True, slots=True)
class Mutation:
    """One way to break one file, and the ids of the tests that notice."""

    group: str
    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]


class BadMutation(Exception):
    """A mutation that cannot be tried."""


def load(folder: Path) -> list[Mutation]:
    """All mutations of all groups. Raises: BadMutation naming the entry that lacks something or has too much."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        for entry in tomllib.loads(path.read_text()).get("mutation", []):
            try:
                found.append(Mutation(group=path.stem, **{**entry, "tests": tuple(entry["tests"])}))
            except (KeyError, TypeError) as error:
                raise BadMutation(f"{path.name}, {entry.get('name', 'without a name')!r}: {error}") from error
    return found


def broken_text(mutation: Mutation, tree: Path) -> str:
    """The broken file's text. Raises: BadMutation when what to find is not there exactly once."""
    path = tree / mutation.file
    text = path.read_text() if path.is_file() else ""
    count = text.count(mutation.find)
    if count != 1:
        raise BadMutation(f"{mutation.file} has the text to find {count} times, expected once")
    return text.replace(mutation.find, mutation.replace)


def stale(mutations: Sequence[Mutation]) -> list[str]:
    """The mutations that do not fit the code any more, or whose tests are gone, and why."""
    told = []
    for mutation in mutations:
        try:
            broken_text(mutation, ROOT)
        except BadMutation as error:
            told.append(f"{mutation.group}, {mutation.name!r}: {error}")
        for test in mutation.tests:
            file, *names = re.sub(r"\[.*", "", test).split("::")
            text = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
            named = all(re.search(rf"\b{name}\b", text) for name in names if name != "runTest")
            if not (ROOT / file).exists() or not named:
                told.append(f"{mutation.group}, {mutation.name!r}: no test {test}")
    return told


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of what the tests need, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="warmline-mutation-") as folder:
        for name in TREE:
            source, target = ROOT / name, Path(folder, name)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*", "node_modules"))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        yield Path(folder)


def environment(tree: Path) -> dict[str, str]:
    sources = os.pathsep.join(str(tree / source) for source in SOURCES)
    # Where CI is set, pytest explains a failed comparison to its end: of two long lists, longer than the limit.
    inherited = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    return {**inherited, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"}


def check_imports(tree: Path) -> None:
    """Raises: BadMutation when what would be imported is not the copy."""
    program = f"from importlib.util import find_spec as f; print(*(f(n).origin for n in {PACKAGES}), sep='\\n')"
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tree, env=environment(tree)
    )
    strays = [line for line in found.stdout.split() if not Path(line).is_relative_to(tree)]
    if strays:
        raise BadMutation(f"the copy is not what is imported: {', '.join(strays)}")


def run_tests(tree: Path, tests: Sequence[str], *, timeout_s: float) -> tuple[int, str]:
    """Returns: pytest's exit code and output; a run that does not end in time counts as one that could not run."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", "-rfE"]
    command += [f"--timeout={TEST_TIMEOUT_S}", "--hypothesis-profile=mutation", *tests]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, cwd=tree, env=environment(tree), timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        return -1, f"no end within {timeout_s:g} s"
    return ended.returncode, ended.stdout + ended.stderr


def survivors(tests: Sequence[str], output: str) -> list[str]:
    """The tests of which no case failed."""
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", output, re.MULTILINE)
    return [test for test in tests if not any(re.match(re.escape(test) + r"($|\[|::|/| )", line) for line in failed)]


def check_unbroken(mutations: Sequence[Mutation]) -> str | None:
    """Runs every named test on the code as it is. Returns: what is wrong, None when all pass."""
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    with copied_tree() as tree:
        check_imports(tree)
        code, output = run_tests(tree, tests, timeout_s=ALL_TIMEOUT_S)
    return None if code == PASSED else output


def attempt(mutation: Mutation) -> str | None:
    """Tries one mutation. Returns: what is wrong with it or its tests, None when they notice it."""
    with copied_tree() as tree:
        try:
            (tree / mutation.file).write_text(broken_text(mutation, tree))
            check_imports(tree)
        except BadMutation as error:
            return str(error)
        code, output = run_tests(tree, mutation.tests, timeout_s=2 * TEST_TIMEOUT_S * len(mutation.tests))
    if code not in (PASSED, FAILED):
        return f"its tests could not run (pytest ended with {code}): {output[-800:]}"
    unnoticed = survivors(mutation.tests, output)
    return f"not noticed by {', '.join(unnoticed)}" if unnoticed else None


def try_all(mutations: Sequence[Mutation]) -> int:
    """Tries mutations one by one and prints a line each. Returns: how many were not noticed."""
    wrong = 0
    for mutation in mutations:
        started_s = time.monotonic()
        trouble = attempt(mutation)
        wrong += trouble is not None
        verdict = "noticed" if trouble is None else "SURVIVED"
        took_s = time.monotonic() - started_s
        print(f"{verdict:<9} {took_s:5.1f} s  {mutation.group:<10} {mutation.name}", flush=True)
        if trouble is not None:
            print(f"          {trouble}", flush=True)
    return wrong


def main() -> int:
    """The command. Returns: exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--group", help="only the mutations of tests/mutations/GROUP.toml")
    parser.add_argument("--name", help="only the mutations whose name contains this")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only each N-th of them, from the first on")
    parser.add_argument("--check", action="store_true", help="run nothing; say which mutations are out of date")
    arguments = parser.parse_args()
    mutations = [
        mutation
        for mutation in load(ROOT / "tests" / "mutations")
        if arguments.group in (None, mutation.group) and (arguments.name or "") in mutation.name
    ][:: max(1, arguments.every)]
    if not mutations:
        parser.error("no mutation is named so")
    if arguments.check:
        told = stale(mutations)
        for line in told:
            print(line)
        return 1 if told else 0
    return run(mutations)


def run(mutations: Sequence[Mutation]) -> int:
    """Tries mutations on tests that pass without them. Returns: exit status."""
    trouble = check_unbroken(mutations)
    if trouble is not None:
        print(f"the tests do not pass on the code as it is:\n{trouble}", file=sys.stderr)
        return 1
    wrong = try_all(mutations)
    print(f"{len(mutations)} mutations, {wrong} not noticed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
