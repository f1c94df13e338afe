"""Conversations in files: read from what people have, written so that they can be read again. Pure but for `save`.

Items are never parsed and written anew: their bytes stay as they are.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

_ITEMS = msgspec.json.Decoder(list[msgspec.Raw])
_VALUES = msgspec.json.Decoder(msgspec.Raw)
_BODY = msgspec.json.Decoder(dict[str, msgspec.Raw])

# Keys of a request body that the server itself sets. `stream` is always so; the others go only when they say nothing.
_SET_BY_SERVER = ("background", "conversation", "generate", "previous_response_id", "stream_id")
_NOTHING = (b"null", b"false")


class InputError(Exception):
    """The input is no conversation; the text says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a turn starts from.

    `items` are JSON objects, oldest first. `request_json` is what else a saved request body had, each value byte for
    byte; blank when the input was items only.
    """

    items: tuple[bytes, ...] = ()
    request_json: bytes = b""


def read_conversation(data: bytes) -> Conversation:
    """Reads a JSON array of items, items one after another (JSON Lines), or a request body with `input`.

    Raises:
        InputError: it is none of these.
    """
    data = _text(data)
    if data.startswith(b"["):
        return Conversation(_objects(_decode(_ITEMS, data), "item"))
    values = _decode_all(data)
    if not values:
        raise InputError("read conversation: the input is empty, expected items")
    if len(values) == 1 and (body := _body(values[0])) is not None:
        return _from_body(body)
    return Conversation(_objects(values, "item"))


def read_tools(data: bytes) -> list[bytes]:
    """Reads a JSON array of tools.

    Raises:
        InputError: it is none.
    """
    data = _text(data)
    if not data.startswith(b"["):
        raise InputError("read tools: found no array, expected a JSON array of tools")
    return list(_objects(_decode(_ITEMS, data), "tool"))


def user_item(text: str) -> bytes:
    """A user's message of one text."""
    part = {"type": "input_text", "text": text}
    return msgspec.json.encode({"type": "message", "role": "user", "content": [part]})


def save(path: Path, items: tuple[bytes, ...]) -> None:
    """Writes a conversation, replacing the file in one step.

    One item follows another, each byte for byte, each on a new line: JSON Lines, unless an item itself has line ends.

    Raises:
        OSError: the file cannot be written; it is then as it was.
    """
    path = path.resolve()
    part = path.with_name(path.name + ".part")
    part.write_bytes(b"".join(item + b"\n" for item in items))
    os.replace(part, path)


def _text(data: bytes) -> bytes:
    data = data.removeprefix(b"\xef\xbb\xbf").strip()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"read input: byte {error.start} is not UTF-8") from error
    return data


def _decode(decoder: "msgspec.json.Decoder[list[msgspec.Raw]]", data: bytes) -> list[msgspec.Raw]:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"read input: {error}") from error


def _decode_all(data: bytes) -> list[msgspec.Raw]:
    try:
        return _VALUES.decode_lines(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"read input: {error}") from error


def _objects(values: list[msgspec.Raw], what: str) -> tuple[bytes, ...]:
    found = tuple(bytes(value) for value in values)
    for number, value in enumerate(found, 1):
        if not value.startswith(b"{"):
            raise InputError(f"read input: {what} {number} is {_kind(value)}, expected an object")
    return found


def _kind(value: bytes) -> str:
    kinds = {b'"': "a string", b"{": "an object", b"[": "an array", b"t": "a boolean", b"f": "a boolean", b"n": "null"}
    return kinds.get(value[:1], "a number")


def _body(value: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """A request body's members; None when the value is an item, which may have an `input` of its own."""
    if not bytes(value).startswith(b"{"):
        return None
    members = _BODY.decode(value)
    is_frame = bytes(members.get("type", b"")) == b'"response.create"'
    if "role" in members or ("type" in members and not is_frame):
        return None
    if "input" not in members:
        raise InputError("read conversation: found an object without `type`, `role` and `input`, expected items")
    return members


def _from_body(body: dict[str, msgspec.Raw]) -> Conversation:
    given = bytes(body.pop("input"))
    if given.startswith(b'"'):
        items: tuple[bytes, ...] = (user_item(msgspec.json.decode(given, type=str)),)
    elif given.startswith(b"["):
        items = _objects(_decode(_ITEMS, given), "item")
    else:
        raise InputError(f"read request body: `input` is {_kind(given)}, expected an array of items or a text")
    for name in ("type", "stream"):
        body.pop(name, None)
    for name in _SET_BY_SERVER:
        if name in body and bytes(body[name]) in _NOTHING:
            del body[name]
    return Conversation(items, msgspec.json.encode(body) if body else b"")
