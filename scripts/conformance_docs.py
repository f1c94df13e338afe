"""Writes docs/conformance.md from docs/conformance.rows and the tests' conformance markers.

`--check` writes nothing and fails where the page is out of date, or a row has neither a test nor a reason.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "docs" / "conformance.rows"
PAGE = ROOT / "docs" / "conformance.md"

HEAD = """# Conformance

What the client that Warmline re-implements does on the wire, row by row, in our own words, and the tests that prove
it. Made by `make docs` from `docs/conformance.rows` and the markers in `tests/`; every test named here runs in
`make test`.

A form names the deliberate difference ([differences](differences.md)) or the newer behaviour (N) that the test proves
instead.

| row | what holds | form | proven by |
| --- | --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One row; `form` and `not_built` are blank where there is nothing to say."""

    id: str
    text: str
    form: str
    not_built: str


def rows() -> list[Row]:
    """The rows, in order."""
    lines = [line for line in ROWS.read_text().splitlines() if line and not line.startswith("#")]
    found = []
    for line in lines:
        parts = [part.strip() for part in line.split("|")] + ["", ""]
        found.append(Row(*parts[:4]))
    return found


def tests_by_row() -> dict[str, list[str]]:
    """Names of the tests that carry each row's id."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for row, test in _marked(ast.parse(path.read_text())):
            found[row].append(f"[{test}](../{path.relative_to(ROOT)})")
    return found


def _marked(tree: ast.Module) -> Iterator[tuple[str, str]]:
    whole_file = [row for node in tree.body if isinstance(node, ast.Assign) for row in _ids(node.value)]
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for row in [*whole_file, *(row for mark in node.decorator_list for row in _ids(mark))]:
                yield row, node.name


def _ids(node: ast.expr) -> list[str]:
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call) and ast.unparse(n.func).endswith("mark.conformance")]
    texts = [a.value for call in calls for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return [text for text in texts if re.fullmatch(r"C-\d{3}", text)]


def page() -> tuple[str, list[str]]:
    """The page, and the rows that have neither a test nor a reason."""
    tests, missing, lines = tests_by_row(), [], []
    for row in rows():
        proof = "<br>".join(dict.fromkeys(tests.get(row.id, [])))
        if row.not_built:
            proof = f"not built: {row.not_built}"
        elif not proof:
            proof = "**no test yet**"
            missing.append(row.id)
        lines.append(f"| {row.id} | {row.text} | {row.form} | {proof} |")
    known = {row.id for row in rows()}
    unknown = sorted(set(tests) - known)
    if unknown:
        raise SystemExit(f"tests carry rows that {ROWS.name} does not have: {', '.join(unknown)}")
    return HEAD + "\n".join(lines) + "\n", missing


def main() -> int:
    """Writes or checks. Returns: exit status."""
    text, missing = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        print("docs/conformance.md is out of date: run `make docs`", file=sys.stderr)
        return 1
    if missing:
        print(f"rows without a test: {', '.join(missing)}", file=sys.stderr)
    return 1 if missing and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
