"""From a TOML file and `WARMLINE_*` variables to Settings: what is built in, under the file, under the variables."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from warmline_server.settings import convert
from warmline_server.settings.annotations import Table
from warmline_server.settings.model import Settings
from warmline_server.settings.problems import Problem, SettingsError
from warmline_server.settings.rules import broken_rules
from warmline_server.settings.upstream import is_azure

PREFIX = "WARMLINE_"
# A configuration has a few KiB.
MAX_FILE_BYTES = 1024 * 1024
# Kubernetes gives every pod variables about the services of its namespace, and a service may be called warmline.
_SERVICE_LINK = re.compile(
    r"WARMLINE(?:_[A-Z0-9]+)*_(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9]+)*|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)

BUILT_IN: Mapping[str, Any] = {
    "upstreams": {
        "openai": {
            "base_url": "https://api.openai.com/v1",
            "credential": {"source": "env", "env": "OPENAI_API_KEY"},
            "organization_env": "OPENAI_ORGANIZATION",
            "project_env": "OPENAI_PROJECT",
        },
        "simulator": {"base_url": "http://127.0.0.1:8080/v1", "dialect": "codex", "provider": "warmline.simulator"},
    }
}
# What people call a key, where only the place of a key may stand.
_SECRET_KEYS = frozenset({"value", "key", "api_key", "apikey", "token", "access_token", "secret", "password", "bearer"})
_NO_SECRETS_HINT = (
    "no secret stands in the configuration: name the variable, file or command that holds it, as "
    'credential = { source = "env", env = "NAME" }'
)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One place that settings come from. `name` is the file's; blank for variables, which are named by their key."""

    name: str
    is_environment: bool = False

    def source(self, key: str) -> str:
        return variable_name(key) if self.is_environment else self.name


_Node = tuple[_Layer, Any]


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Reads the configuration.

    Args: `path` of the TOML file, None for none; `environ` the environment, of which `WARMLINE_*` is read, and the
        variables that an upstream names for its organization and project.
    Raises: SettingsError with everything that is wrong.
    """
    layers: list[_Node] = [(_Layer("", is_environment=True), _from_environment(environ))]
    if path is not None:
        layers.append((_Layer(str(path)), _from_file(path)))
    layers.append((_Layer("the built-in settings"), BUILT_IN))
    reader = _Reader(environ)
    settings = reader.read(Settings, layers, "")
    if reader.problems:
        raise SettingsError(reader.problems)
    assert isinstance(settings, Settings)
    problems = broken_rules(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def variable_name(key: str) -> str:
    """The variable that overrides a key."""
    return PREFIX + re.sub(r"[^A-Z0-9.]", "_", key.upper()).replace(".", "__")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) <= MAX_FILE_BYTES:
            return tomllib.loads(content.decode())
        why = f"more than {MAX_FILE_BYTES} bytes"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        why = "a file that is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        why = f"no TOML: {error}"
    except RecursionError:
        why = "values nested too deeply"
    # Outside the handlers: the error would carry the file's text, and a secret with it, into a traceback.
    raise SettingsError([Problem(str(path), why, "a TOML file that can be read")])


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    problems = []
    for variable, text in sorted(environ.items()):
        if not variable.startswith(PREFIX) or _SERVICE_LINK.fullmatch(variable):
            continue
        *tables, name = variable.removeprefix(PREFIX).lower().split("__")
        node = values
        for table in tables:
            node = node.setdefault(table, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or isinstance(node.get(name), dict):
            problems.append(Problem(variable, "a value and a part of it", "one of them"))
            continue
        node[name] = text
    if problems:
        raise SettingsError(problems)
    return values


class _Reader:
    """Walks the settings' types beside the layers, and notes what does not fit."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []

    def read(self, table: type[Table], nodes: Sequence[_Node], path: str) -> Table | None:
        """A table of settings from the layers, highest first; None when a problem was noted."""
        before = len(self.problems)
        nodes = [node for node in nodes if self._is_table(node, path)]
        fields = msgspec.structs.fields(table)
        for node in nodes:
            self._refuse_unknown(node, [field.name for field in fields], path)
        values = {}
        for field in fields:
            given = [(layer, value[field.name]) for layer, value in nodes if field.name in value]
            if given:
                values[field.name] = self._value(field.type, given, f"{path}{field.name}")
        return table(**values) if len(self.problems) == before else None

    def _value(self, annotation: Any, given: Sequence[_Node], key: str) -> object:
        table = convert.table_type(annotation)
        if table is not None:
            return self.read(table, given, f"{key}.")
        named = convert.named_table_type(annotation)
        if named is not None:
            return self._named(named, given, key)
        layer, value = given[0]
        try:
            if layer.is_environment and isinstance(value, str):
                return convert.from_text(value, annotation)
            return convert.from_toml(value, annotation)
        except convert.Rejected as rejected:
            self._note(key, rejected, layer)
            return None

    def _named(self, table: type[Table], given: Sequence[_Node], key: str) -> dict[str, Any]:
        """Tables by name; a variable's name is matched without regard to case and punctuation."""
        given = [node for node in given if self._is_table(node, f"{key}.")]
        names = [name for layer, value in given if not layer.is_environment for name in value]
        known = {variable_name(name): name for name in names}
        found: dict[str, list[_Node]] = {}
        for layer, value in given:
            for name, inner in value.items():
                actual = known.get(variable_name(name), name) if layer.is_environment else name
                found.setdefault(actual, []).append((layer, inner))
        for nodes in found.values():
            nodes.append((_Layer("the environment"), _derived(nodes, self._environ)))
        return {name: self.read(table, inner, f"{key}.{name}.") for name, inner in sorted(found.items())}

    def _is_table(self, node: _Node, path: str) -> bool:
        layer, value = node
        if isinstance(value, Mapping):
            return True
        hint = f"its settings are {variable_name(path)}NAME" if layer.is_environment else ""
        self._note(path.removesuffix("."), convert.Rejected(convert.kind_of(value), "a table", hint), layer)
        return False

    def _refuse_unknown(self, node: _Node, known: Sequence[str], path: str) -> None:
        layer, value = node
        for name in value:
            if name not in known:
                self._note(f"{path}{name}", convert.Rejected("an unknown key", *_right_key(name, known, path)), layer)

    def _note(self, key: str, rejected: convert.Rejected, layer: _Layer) -> None:
        self.problems.append(Problem(key, rejected.found, rejected.expected, rejected.hint, layer.source(key)))


def _right_key(name: str, known: Sequence[str], path: str) -> tuple[str, str]:
    """What stands there instead of an unknown key, and which key was probably meant."""
    names = f"one of {', '.join(sorted(known))}"
    if path.startswith("upstreams.") and name.lower() in _SECRET_KEYS:
        return "a known one", _NO_SECRETS_HINT
    likely = convert.nearest(name, known)
    if likely:
        return "a known one", f"did you mean {path}{likely}?"
    elsewhere = {key.rpartition(".")[2]: key for key in reversed(all_keys())}
    likely = convert.nearest(name, elsewhere)
    return names, f"did you mean {elsewhere[likely]}?" if likely else ""


def all_keys(table: type[Table] = Settings, path: str = "") -> list[str]:
    """Every key, dotted, in the order of the manual; a name that the operator chooses is NAME."""
    keys: list[str] = []
    for field in msgspec.structs.fields(table):
        key = f"{path}{field.name}"
        inner, named = convert.table_type(field.type), convert.named_table_type(field.type)
        if inner is not None:
            keys += all_keys(inner, f"{key}.")
        elif named is not None:
            keys += all_keys(named, f"{key}.NAME.")
        else:
            keys.append(key)
    return keys


def _derived(nodes: Sequence[_Node], environ: Mapping[str, str]) -> dict[str, Any]:
    """What an upstream leaves to its URL and to the environment."""

    def given(name: str) -> str:
        value = next((value[name] for _, value in nodes if isinstance(value, Mapping) and name in value), "")
        return value if isinstance(value, str) else ""

    variables = {"organization": given("organization_env"), "project": given("project_env")}
    derived = {name: environ[variable].strip() for name, variable in variables.items() if variable in environ}
    if is_azure(given("base_url")):
        derived |= {"dialect": "azure", "provider": "azure.ai.openai"}
    return derived
