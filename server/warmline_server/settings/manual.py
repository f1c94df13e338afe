"""The configuration's manual and its JSON schema, both made from the settings themselves."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from warmline_server.settings import convert
from warmline_server.settings.annotations import HIDE, LATER, UNIT, Table, extra, metas
from warmline_server.settings.load import BUILT_IN, variable_name
from warmline_server.settings.model import Settings

_INTRODUCTION = """# Configuration

<!-- Made by scripts/configuration_docs.py from the settings themselves. Do not edit. -->

`warmline serve` reads one TOML file, if `--config` names one, and then the environment. Nothing else: what is in
neither has the default below. `warmline config check` reads both as the server does, says everything that is wrong
with them, and looks for the variables, files and programs that they name. An unknown key is an error.

**Variables.** Every key can be set by a variable: `WARMLINE_`, then the key in upper case with `__` for each dot, and
`_` for whatever a variable's name cannot hold. `limits.max_sessions` is `WARMLINE_LIMITS__MAX_SESSIONS`. A list is
words with commas, or a JSON array; a table of texts is a JSON object. A variable wins over the file. The variables
that Kubernetes makes for a service called `warmline` (`WARMLINE_PORT`, `WARMLINE_SERVICE_HOST`, …) are not read.

**Units.** `_s` is seconds, with a fraction if need be; `_bytes` is bytes.

**Secrets.** No secret stands in the configuration: an upstream's `credential` names the variable, file or program that
holds it. It goes to the host of that upstream's `base_url` and nowhere else; redirects are not followed.

```toml
default_upstream = "openai"          # works with OPENAI_API_KEY alone

[upstreams.azure]
base_url = "https://example.openai.azure.com/openai/v1"
credential = { source = "file", file = "/run/secrets/azure-key", header = "api-key", scheme = "" }

[limits]
max_sessions = 2000
```
"""


def schema() -> dict[str, Any]:
    """The configuration's JSON schema, for editors."""
    return msgspec.json.schema(Settings)


def markdown() -> str:
    """docs/configuration.md."""
    return _INTRODUCTION + "".join(_section(Settings, "")) + _built_in()


def _section(table: type[Table], path: str) -> Iterator[str]:
    yield _heading(table, path)
    yield "| key | value | default | meaning |\n| --- | --- | --- | --- |\n"
    inner: list[tuple[type[Table], str]] = []
    for field in msgspec.structs.fields(table):
        found, named = convert.table_type(field.type), convert.named_table_type(field.type)
        if found is not None:
            inner.append((found, f"{path}{field.name}."))
        elif named is not None:
            inner.append((named, f"{path}{field.name}.NAME."))
        else:
            yield _row(field)
    for deeper, deeper_path in inner:
        yield from _section(deeper, deeper_path)


def _heading(table: type[Table], path: str) -> str:
    title = f"`[{path.removesuffix('.')}]`" if path else "The top"
    return f"\n## {title}\n\n{table.__doc__}\n\n"


def _row(field: msgspec.structs.FieldInfo) -> str:
    text = " ".join(meta.description for meta in metas(field.type) if meta.description)
    if extra(field.type, LATER):
        text += " **Not carried out yet: setting it is refused.**"
    if extra(field.type, HIDE):
        text += " Never shown in logs or errors."
    return f"| `{field.name}` | {_kind(field.type)} | {_default(field)} | {text} |\n"


def _kind(annotation: Any) -> str:
    base = convert.base_type(annotation)
    if get_origin(base) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(base))
    if get_origin(base) is tuple:
        return f"list of {_kind(get_args(base)[0])}"
    if get_origin(base) is dict:
        return "table of texts"
    unit = {"s": "seconds", "bytes": "bytes", None: ""}[extra(annotation, UNIT)]
    word = unit or {bool: "`true`, `false`", int: "whole number", float: "number", str: "text"}[base]
    return word + convert.bounds(annotation).replace(">=", "≥").replace("<=", "≤").replace(" and", ",")


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.default is msgspec.NODEFAULT:
        return "`{}`"
    if extra(field.type, UNIT) == "bytes" and field.default % 1024 == 0:
        return f"`{field.default:_}` ({_size(field.default)})"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def _size(size_bytes: int) -> str:
    kib = size_bytes // 1024
    return f"{kib // 1024} MiB" if kib % 1024 == 0 else f"{kib} KiB"


def _built_in() -> str:
    """What is there without any configuration."""
    toml = "".join(f"\n[upstreams.{name}]\n{_lines(values)}" for name, values in BUILT_IN["upstreams"].items())
    example = variable_name("upstreams.simulator.base_url")
    return (
        "\n## Built in\n\nThese stand beneath the file, which can change any of it, as can a variable "
        f"(`{example}`).\n\n```toml{toml}```\n"
    )


def _lines(values: dict[str, Any]) -> str:
    return "".join(f"{name} = {_toml(value)}\n" for name, value in values.items())


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    return msgspec.json.encode(value).decode()
