"""Scripts in YAML: the fields of `Script`, `Connection` and `Reply`, with tags for steps and builders.

A tag is a step (`!drop`, `!pause 0.5`, `!close {code: 1011}`) or any builder of `ev` (`!text_response hello`). A scalar
is its first argument, a list its arguments in order, a mapping its named arguments. A plain mapping in `events` is an
event, a plain string raw text, `!!binary` a binary frame. Whole answers are spread into the list they stand in.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import yaml

from warmline_simulator import ev, read, script
from warmline_simulator.records import RequestRecord
from warmline_simulator.script import Connection, Match, Reply, Script
from warmline_simulator.settings import Settings

STEPS: dict[str, Callable[..., Any]] = {
    "ping": lambda payload="": script.Ping(payload.encode() if isinstance(payload, str) else payload),
    "pause": script.Pause,
    "gate": script.Gate,
    "drop": script.Drop,
    "close": script.Close,
    "stall": script.Stall,
    "hang": script.Hang,
    "oversize": script.Oversize,
    "frame": script.Frame,
    "nothing": script.Nothing,
}
MATCHES = ("warm_up", "continues", "model", "contains", "header", "stream_id")
_NOT_CONVERTED = {
    *("events", "replies", "then", "connections", "creates", "posts", "compact", "memories", "model_replies", "match"),
    *("gate", "body", "turn_state"),
}
"""Fields that are built here, or whose type has no JSON form to check against."""


class ScriptFileError(ValueError):
    """A script file that cannot be used. The text names the file, the place and what was expected."""


@dataclass(frozen=True, slots=True)
class LoadedScript:
    """What a script file holds."""

    script: Script
    settings: dict[str, Any]
    """Settings it chooses; empty when it chooses none."""


def load(path: Path) -> LoadedScript:
    """Read a script file.

    Raises:
        ScriptFileError: it is not there, not YAML, or says something no script can say.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as fault:
        raise ScriptFileError(f"read script {path}: {fault.strerror}") from fault
    loader = _Loader(text, path)
    try:
        content = loader.get_single_data()
    except yaml.YAMLError as fault:
        raise ScriptFileError(f"read script {path}: {_one_line(fault)}") from fault
    finally:
        loader.dispose()
    where = str(path)
    if not isinstance(content, dict):
        raise ScriptFileError(f"read script {where}: found {type(content).__name__} — expected a mapping")
    settings = _settings(content.pop("settings", {}), f"{where}: settings")
    return LoadedScript(_script(content, where), settings)


def _one_line(fault: Exception) -> str:
    return " ".join(str(fault).split())


class _Loader(yaml.SafeLoader):
    """YAML with the tags of a script; `path` is where recorded answers are looked for."""

    def __init__(self, text: str, path: Path) -> None:
        super().__init__(text)
        self.path = path


def _construct(loader: _Loader, name: str, node: yaml.Node) -> Any:
    make: Callable[..., Any] | None = STEPS.get(name)
    if name == "recorded":
        make = lambda file: _read_recorded(loader.path.parent / str(file))  # noqa: E731
    elif make is None and name in ev.__all__ and callable(getattr(ev, name)):
        make = getattr(ev, name)
    if make is None:
        raise yaml.MarkedYAMLError(
            problem=f"unknown tag !{name}{_nearest(name, _tags())}", problem_mark=node.start_mark
        )
    try:
        return _call(loader, make, node)
    except (TypeError, AttributeError) as fault:
        raise yaml.MarkedYAMLError(problem=f"!{name}: {fault}", problem_mark=node.start_mark) from fault


def _call(loader: _Loader, make: Callable[..., Any], node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        named = loader.construct_mapping(node, deep=True)
        return make(**{str(name): value for name, value in named.items()})
    if isinstance(node, yaml.SequenceNode):
        return make(*loader.construct_sequence(node, deep=True))
    is_quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
    value = node.value if is_quoted else yaml.safe_load(node.value)
    return make() if value is None else make(value)


_Loader.add_multi_constructor("!", _construct)


def _tags() -> list[str]:
    return [*STEPS, "recorded", *(name for name in ev.__all__ if callable(getattr(ev, name)))]


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" — did you mean {close[0]!r}?" if close else ""


def _read_recorded(path: Path) -> list[Any]:
    """One step per line: an object is an event, a string raw text."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as fault:
        raise TypeError(f"recorded answer {path}: {fault.strerror}") from fault
    return [msgspec.json.decode(line) for line in lines if line]


def _settings(content: Any, where: str) -> dict[str, Any]:
    return dict(_checked(Settings, content, where))


def _checked(cls: type[Any], content: Any, where: str) -> dict[str, Any]:
    """The mapping with every key known to `cls` and every plain value of the field's type."""
    if not isinstance(content, dict):
        raise ScriptFileError(f"read script {where}: found {type(content).__name__} — expected a mapping")
    known = [each.name for each in fields(cls)]
    hints = get_type_hints(cls)
    for name, value in content.items():
        if name not in known:
            raise ScriptFileError(f"read script {where}: unknown key {name!r}{_nearest(str(name), known)}")
        if name in _NOT_CONVERTED:
            continue
        try:
            msgspec.convert(value, hints[name])
        except (msgspec.ValidationError, TypeError) as fault:
            raise ScriptFileError(f"read script {where}.{name}: {fault}") from fault
    return content


def _list(content: Any, where: str, make: Callable[[Any, str], Any]) -> list[Any]:
    if not isinstance(content, list):
        raise ScriptFileError(f"read script {where}: found {type(content).__name__} — expected a list")
    return [make(each, f"{where}[{position}]") for position, each in enumerate(content)]


def _script(content: dict[str, Any], where: str) -> Script:
    made = dict(_checked(Script, content, where))
    for name in ("creates", "posts", "compact", "memories", "model_replies"):
        if name in made:
            made[name] = _list(made[name], f"{where}: {name}", _reply)
    if "connections" in made:
        made["connections"] = _list(made["connections"], f"{where}: connections", _connection)
    return Script(**made)


def _connection(content: Any, where: str) -> Connection:
    made = dict(_checked(Connection, {} if content is None else content, where))
    if "replies" in made:
        made["replies"] = _list(made["replies"], f"{where}.replies", _reply)
    if "then" in made:
        made["then"] = _steps(made["then"], f"{where}.then")
    return Connection(**made)


def _reply(content: Any, where: str) -> Reply:
    made = dict(_checked(Reply, {} if content is None else content, where))
    if "events" in made:
        made["events"] = _steps(made["events"], f"{where}.events")
    if "match" in made:
        made["match"] = _match(made["match"], f"{where}.match")
    return Reply(**made)


def _steps(content: Any, where: str) -> list[Any]:
    """The steps of a list, whole answers spread; a single answer needs no list around it."""
    if not isinstance(content, list):
        raise ScriptFileError(f"read script {where}: found {type(content).__name__} — expected a list")
    steps: list[Any] = []
    for each in content:
        steps.extend(each if isinstance(each, list) else [each])
    for step in steps:
        if not isinstance(step, Mapping | str | bytes) and type(step).__name__ not in _STEP_NAMES:
            raise ScriptFileError(f"read script {where}: found {step!r} — expected an event, a text or a step")
    return steps


_STEP_NAMES = {"Ping", "Pause", "Gate", "Drop", "Close", "Stall", "Hang", "Oversize", "Frame", "Nothing"}


def _match(content: Any, where: str) -> Match:
    """A predicate from a mapping; every entry must hold.

    `warm_up` and `continues` take true or false, `model` and `stream_id` a value, `contains` a text the body must
    hold, `header` a mapping of names to values.
    """
    if not isinstance(content, dict):
        raise ScriptFileError(f"read script {where}: found {type(content).__name__} — expected a mapping")
    for name in content:
        if name not in MATCHES:
            raise ScriptFileError(f"read script {where}: unknown key {name!r}{_nearest(str(name), MATCHES)}")
    return lambda record: all(_holds(record, name, value) for name, value in content.items())


def _holds(record: RequestRecord, name: str, value: Any) -> bool:
    match name:
        case "warm_up":
            return read.is_warm_up(record) is value
        case "continues":
            return (read.previous_response_id(record) is not None) is value
        case "contains":
            return str(value).encode() in record.raw
        case "header":
            return all(read.header(record, each) == str(wanted) for each, wanted in value.items())
        case _:
            return bool(record.body.get(name) == value)
