"""Items of a conversation in a comparable form.

What an agent sends back may differ from what came: re-serialised, without `id` or `status`. What the model sees is
compared, nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from warmline_server.core.nesting import is_too_deep
from warmline_server.observe.bundle.errors import Damage, ReplayError
from warmline_server.observe.bundle.state import Part

# Source: reference/wire-behaviour.md §8.6, supported types.
CALLS = frozenset({"function_call", "custom_tool_call", "tool_search_call", "local_shell_call"})
OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output", "tool_search_output", "mcp_tool_call_output"})
OTHERS = frozenset(
    {
        "web_search_call",
        "image_generation_call",
        "compaction",
        "compaction_summary",
        "context_compaction",
    }
)
MESSAGES = frozenset({"message", "agent_message"})
TEXT_PARTS = frozenset({"input_text", "output_text", "text"})
# Not seen by the model, and not kept by every agent.
VOLATILE = frozenset({"id", "status", "type", "internal_chat_message_metadata_passthrough"})


@dataclass(frozen=True, slots=True)
class Seen:
    """An item as it stood in a payload. `call_id` blank: it has none."""

    kind: str
    role: str
    call_id: str
    body: tuple[Part, ...]

    @property
    def encrypted(self) -> str:
        """The encrypted content of a reasoning item; blank for every other."""
        return next((p.text for p in self.body if p.kind == "encoded"), "") if self.kind == "reasoning" else ""

    def equals(self, kind: str, role: str, call_id: str, body: Sequence[Part]) -> bool:
        """Whether a kept item is this one. Reasoning is known by its encrypted content, whatever else was shown."""
        if (self.kind, self.role, self.call_id) != (kind, role, call_id):
            return False
        if self.encrypted:
            return any(part.kind == "encoded" and part.text == self.encrypted for part in body)
        return self.body == tuple(body)


def normalize(raw: object) -> Seen:
    """Reads an item. Raises: ReplayError UNKNOWN_ITEM_TYPE, BAD_PAYLOAD."""
    if not isinstance(raw, dict):
        raise ReplayError(Damage.BAD_PAYLOAD, f"an item is a JSON {type(raw).__name__}, expected an object")
    # A message may come without its type.
    kind = raw.get("type", "message" if "role" in raw else None)
    if not isinstance(kind, str):
        raise ReplayError(Damage.UNKNOWN_ITEM_TYPE, f"item type {kind!r}")
    call_id = _text(raw.get("call_id"))
    if kind in MESSAGES:
        rest = {} if kind == "message" else {k: v for k, v in raw.items() if k in ("author", "recipient")}
        extra = (Part("json", canonical(rest)),) if rest else ()
        return Seen(kind, _text(raw.get("role")), "", (*_content(raw.get("content")), *extra))
    if kind == "reasoning":
        return Seen(kind, "", "", _reasoning(raw))
    if kind in CALLS or kind in OUTPUTS or kind in OTHERS:
        body = {k: _unquoted(v) for k, v in raw.items() if k not in VOLATILE and k != "call_id"}
        return Seen(kind, "", call_id, (Part("json", canonical(body)),))
    raise ReplayError(Damage.UNKNOWN_ITEM_TYPE, f"item type {kind!r}")


def merge(former: Sequence[Part], seen: Sequence[Part]) -> list[Part]:
    """The body of a reasoning item that was seen again: the first text wins, and what was missing is filled in."""
    have = {part.kind for part in former}
    parts = [*former, *(part for part in seen if part.kind not in have)]
    return sorted(parts, key=lambda part: _REASONING_ORDER.index(part.kind))


_REASONING_ORDER = ("text", "summary", "encoded")


def _reasoning(raw: Mapping[str, object]) -> tuple[Part, ...]:
    parts = [*_texts(raw.get("content"), "text"), *_texts(raw.get("summary"), "summary")]
    encrypted = _text(raw.get("encrypted_content"))
    return (*parts, Part("encoded", encrypted)) if encrypted else tuple(parts)


def _texts(raw: object, kind: str) -> list[Part]:
    found = raw if isinstance(raw, list) else []
    return [Part(kind, _text(part.get("text"))) for part in found if isinstance(part, dict)]


def _content(raw: object) -> tuple[Part, ...]:
    if isinstance(raw, str):
        return (Part("text", raw),)
    found = raw if isinstance(raw, list) else []
    return tuple(
        Part("text", _text(part.get("text")))
        if isinstance(part, dict) and _text(part.get("type")) in TEXT_PARTS
        else Part("json", canonical(part))
        for part in found
    )


def _unquoted(value: object) -> object:
    """JSON inside a string, as arguments are: compared by its value."""
    if isinstance(value, str) and value[:1] in ("{", "[") and not is_too_deep(value.encode()):
        try:
            return msgspec.json.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            return value
    return value


def canonical(value: object) -> str:
    """One text per JSON value."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
