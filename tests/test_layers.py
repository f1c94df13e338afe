"""Who may import whom. Imports go downwards, and what is said here is all that is allowed."""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parent.parent / "server"


@dataclass(frozen=True)
class Rule:
    """What a package may import beside itself and the standard library.

    `ours`: packages or modules of this repository, the name of a package standing for all that is in it; `others`:
    third-party packages; `not_standard`: modules of the standard library that are refused.
    """

    ours: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    not_standard: frozenset[str] = frozenset()


# Whatever waits, does I/O, or knows the time of day.
IO = frozenset(
    [
        "asyncio",
        "concurrent",
        "contextvars",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "select",
        "selectors",
        "signal",
        "socket",
        "ssl",
        "subprocess",
        "tempfile",
        "threading",
        "time",
        "urllib",
        "uuid",
    ]
)

IDS = "warmline_server.ids"
CORE, CLOCK, SETTINGS = "warmline_server.core", "warmline_server.clock", "warmline_server.settings"
TRANSPORT, SESSION = "warmline_server.transport", "warmline_server.session"
CREDENTIALS, OBSERVE, RPC = "warmline_server.credentials", "warmline_server.observe", "warmline_server.rpc"
CALLERS, WATCHED_FILE = "warmline_server.callers", "warmline_server.watched_file"

RULES = {
    CORE: Rule(others=("msgspec",), not_standard=IO),
    CLOCK: Rule(),
    IDS: Rule(),
    WATCHED_FILE: Rule(),
    SETTINGS: Rule(others=("msgspec",)),
    TRANSPORT: Rule(ours=(CORE, CLOCK), others=("aiohappyeyeballs", "zstandard")),
    CREDENTIALS: Rule(ours=(CORE, CLOCK, SETTINGS, WATCHED_FILE), others=("msgspec",)),
    CALLERS: Rule(ours=(CORE, CLOCK, SETTINGS, WATCHED_FILE), others=("cryptography", "jwt", "msgspec")),
    SESSION: Rule(ours=(CORE, CLOCK, IDS, SETTINGS, TRANSPORT, CREDENTIALS), others=("msgspec",)),
    # What leaves the process about us sees records and steps, never the session behind them, and no gRPC.
    OBSERVE: Rule(
        ours=(CORE, SETTINGS, f"{SESSION}.observer"),
        others=("msgspec", "opentelemetry", "prometheus_client", "structlog"),
    ),
    RPC: Rule(
        ours=(CORE, CLOCK, IDS, SESSION, OBSERVE, CALLERS, "warmline.v1"),
        others=("grpc", "google", "msgspec", "opentelemetry"),
    ),
    "warmline_server.app": Rule(
        ours=("warmline_server", "warmline.v1"),
        others=("grpc", "grpc_channelz", "grpc_health", "grpc_reflection", "opentelemetry"),
    ),
    "warmline_cli": Rule(
        ours=("warmline_server", "warmline_simulator", "warmline"),
        others=("google", "msgspec", "opentelemetry", "uvloop", "yaml"),
    ),
    "warmline_simulator": Rule(others=("h11", "msgspec", "uvloop", "websockets", "yaml", "zstandard")),
}

# Third-party packages that one file alone, or those that begin with its name, may import, whatever their package may.
ONLY_IN = {
    "httpx": "warmline_server/transport/http.py",
    "httpcore": "warmline_server/transport/http_network.py",
    "anyio": "warmline_server/transport/http.py",
    "websockets": "warmline_server/transport/websocket",
    "opentelemetry.exporter.otlp": "warmline_server/observe/otlp.py",
    "opentelemetry.exporter.prometheus": "warmline_server/observe/prometheus.py",
    "prometheus_client": "warmline_server/observe/prometheus.py",
    "pytest": "warmline_simulator/pytest_plugin.py",
    "pytest_asyncio": "warmline_simulator/pytest_plugin.py",
}
OURS = ("warmline", "warmline_cli", "warmline_server", "warmline_simulator")


@dataclass(frozen=True)
class Import:
    """One imported module, as `file:line` in `package`; `names` are what is taken from it."""

    file: str
    line: int
    package: str
    module: str
    names: tuple[str, ...] = ()

    def is_of(self, package: str) -> bool:
        """Whether the import is of a package, or of something in it."""
        candidates = [self.module, *(f"{self.module}.{name}" for name in self.names)]
        return any(each == package or each.startswith(f"{package}.") for each in candidates)

    @property
    def root(self) -> str:
        return self.module.partition(".")[0]


def imports(server: Path) -> list[Import]:
    """Every import of every file, those for type checking and inside functions included."""
    return [found for path in sorted(server.rglob("*.py")) for found in _imports_of(path, server)]


def _imports_of(path: Path, server: Path) -> Iterator[Import]:
    file = path.relative_to(server).as_posix()
    dotted = file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    package = package_of(dotted)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, package, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = dotted.split(".") if path.name == "__init__.py" else dotted.split(".")[:-1]
            origin = base[: len(base) - node.level + 1] if node.level else []
            module = ".".join([*origin, *([node.module] if node.module else [])])
            yield Import(file, node.lineno, package, module, tuple(alias.name for alias in node.names))


def package_of(module: str) -> str:
    """The part of the repository that a module belongs to: the server's packages one by one, others as a whole."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "warmline_server" else parts[0]


def broken(found: Import) -> str | None:
    """The rule that an import breaks, in words; None when it breaks none."""
    rule = RULES.get(found.package)
    if rule is None:
        return f"{found.package} has no rule in RULES"
    for package, file in ONLY_IN.items():
        if package not in rule.others and found.is_of(package):
            return None if found.file.startswith(file) else f"{package} is imported in {file} alone"
    if found.root in OURS:
        if found.is_of(found.package) or any(found.is_of(each) for each in rule.ours):
            return None
        return f"of ours, {found.package} imports itself and {', '.join(rule.ours) or 'nothing'}"
    if found.root in sys.stdlib_module_names:
        refused = found.root in rule.not_standard
        return f"{found.package} does no I/O and knows no time, so not {found.root}" if refused else None
    if found.root in rule.others:
        return None
    return f"of third parties, {found.package} imports {', '.join(rule.others) or 'none'}"


def violations(server: Path) -> list[str]:
    """Every broken rule: file, line, what is imported, the rule."""
    told = []
    for found in imports(server):
        rule = broken(found)
        if rule is not None:
            told.append(f"{found.file}:{found.line} imports {found.module}: {rule}")
        if found.root in OURS:
            private = [name for name in found.names if name.startswith("_") and not name.startswith("__")]
            told += [
                f"{found.file}:{found.line} imports {name}: a leading underscore stays in its file" for name in private
            ]
    return told


def cycle(server: Path) -> list[str]:
    """Packages that import each other in a ring; empty when there is none."""
    graph: dict[str, set[str]] = {}
    for found in imports(server):
        names = [f"{found.module}.{name}" for name in found.names] if found.module == "warmline_server" else []
        for module in names or [found.module]:
            target = package_of(module)
            if module.partition(".")[0] in OURS and target != found.package:
                graph.setdefault(found.package, set()).add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        return ring
    return []


def test_imports_go_downwards() -> None:
    assert len(imports(SERVER)) > 300
    assert violations(SERVER) == []


def test_packages_have_no_cycle() -> None:
    # `session.observer` is the seam that `observe` implements, and `session` knows nothing of who does.
    assert cycle(SERVER) == []


def test_every_package_has_a_rule_and_every_rule_a_package() -> None:
    assert {found.package for found in imports(SERVER)} == set(RULES)


PLANTED = [
    ("warmline_server/core/bad.py", "import asyncio", "warmline_server.core does no I/O"),
    ("warmline_server/core/bad.py", "import httpx", "httpx is imported in warmline_server/transport/http.py alone"),
    ("warmline_server/core/bad.py", "from warmline_server import session", "imports itself and nothing"),
    ("warmline_server/core/bad.py", "from warmline_server.core.delta import _encode", "a leading underscore"),
    ("warmline_server/core/bad.py", "from ..session import gate", "imports itself and nothing"),
    ("warmline_server/core/bad.py", "def f():\n    import zstandard", "imports msgspec"),
    ("warmline_server/transport/bad.py", "import websockets", "transport/websocket alone"),
    ("warmline_server/transport/bad.py", "from warmline_server.settings import Limits", "imports itself and"),
    ("warmline_server/session/bad.py", "import grpc", "imports msgspec"),
    ("warmline_server/session/bad.py", "from opentelemetry import trace", "imports msgspec"),
    ("warmline_server/session/bad.py", "from warmline.v1 import types_pb2", "imports itself and"),
    ("warmline_server/session/bad.py", "from warmline_server.observe import names", "imports itself and"),
    ("warmline_server/observe/bad.py", "import grpc", "imports msgspec, opentelemetry, prometheus_client, structlog"),
    ("warmline_server/observe/bad.py", "from warmline_server.session import call", "imports itself and"),
    ("warmline_server/observe/bad.py", "from warmline_server.rpc import status", "imports itself and"),
    ("warmline_server/observe/bad.py", "import opentelemetry.exporter.otlp", "is imported in"),
    ("warmline_server/rpc/bad.py", "from warmline_server.transport import http", "imports itself and"),
    ("warmline_server/rpc/bad.py", "import warmline_server.app", "imports itself and"),
    ("warmline_server/app.py", "import warmline_simulator", "imports itself and warmline_server, warmline.v1"),
    ("warmline_server/app.py", "from warmline import Client", "imports itself and warmline_server, warmline.v1"),
    ("warmline_simulator/bad.py", "import warmline_server.core.sse", "imports itself and nothing"),
    ("warmline_simulator/bad.py", "from warmline import items", "imports itself and nothing"),
    ("warmline_server/extra/bad.py", "import re", "warmline_server.extra has no rule"),
]


@pytest.mark.parametrize(("file", "text", "rule"), PLANTED, ids=[f"{file}-{text}" for file, text, _ in PLANTED])
def test_violation_is_told_with_its_file_line_and_rule(tmp_path: Path, file: str, text: str, rule: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(f"import dataclasses\n{text}\n")

    told = violations(tmp_path)

    line = 2 + text.count("\n")
    assert any(each.startswith(f"{file}:{line} imports ") and rule in each for each in told), told


ALLOWED = [
    ("warmline_server/core/good.py", "import msgspec, re\nfrom warmline_server.core import delta\nfrom . import retry"),
    ("warmline_server/observe/good.py", "from warmline_server.session.observer import Observer"),
    ("warmline_server/observe/good.py", "from warmline_server.session import observer"),
    ("warmline_server/observe/otlp.py", "from opentelemetry.exporter.otlp.proto.grpc import trace_exporter"),
    ("warmline_server/transport/http.py", "import httpx\nfrom warmline_server import clock"),
    ("warmline_cli/good.py", "import warmline\nfrom warmline_server import app\nimport warmline_simulator"),
]


@pytest.mark.parametrize(("file", "text"), ALLOWED, ids=[f"{file}-{index}" for index, (file, _) in enumerate(ALLOWED)])
def test_allowed_imports_break_no_rule(tmp_path: Path, file: str, text: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)

    assert violations(tmp_path) == []


def test_cycle_is_found(tmp_path: Path) -> None:
    for package, target in (("core", "session"), ("session", "transport"), ("transport", "core")):
        folder = tmp_path / "warmline_server" / package
        folder.mkdir(parents=True)
        (folder / "a.py").write_text(f"from warmline_server import {target}\n")

    assert set(cycle(tmp_path)) == {CORE, SESSION, TRANSPORT}
