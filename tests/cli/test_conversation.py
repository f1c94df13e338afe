"""Conversations in files: what is read, byte for byte, and what is refused."""

from pathlib import Path

import pytest

from warmline_cli.conversation import (
    Conversation,
    InputError,
    read_conversation,
    read_tools,
    save,
    user_item,
)

# Blanks, escapes, key order, numbers and line ends that re-serialising would change.
MESSAGE = (
    b'{ "role" : "user", "type":"message", "content":[{"type":"input_text","text":"K\\u00f6ln \xe2\x98\x80 \\/"}] }'
)
IMAGE = (
    b'{"type":"message","role":"user","content":[{"type":"input_image","image_url":"https://x.test/a.png?b=1&c=2"}]}'
)
REASONING = b'{"type":"reasoning","summary":[ ],"encrypted_content":"gAAAAABo+/=="}'
CALL = b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{\\"n\\": 1.0}", "n":9007199254740993}'
OUTPUT = b'{"type":"function_call_output",\n  "call_id":"c1",\n  "output":"1e5"\n}'
CUSTOM = b'{"type":"custom_tool_call","call_id":"c2","name":"patch","input":"*** Begin"}'
ITEMS = (MESSAGE, IMAGE, REASONING, CALL, OUTPUT, CUSTOM)


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b",".join(ITEMS) + b"]",
        b"\xef\xbb\xbf [\n  " + b",\n  ".join(ITEMS) + b"\n]\n",
        b"\n".join(ITEMS) + b"\n",
        b"\r\n\r\n".join(ITEMS),
        b'{"model":"m","input":[' + b" , ".join(ITEMS) + b"]}",
    ],
    ids=["array", "indented array with a byte order mark", "lines", "blank lines", "request body"],
)
def test_items_are_read_byte_for_byte(data: bytes) -> None:
    assert read_conversation(data).items == ITEMS


@pytest.mark.parametrize("item", ITEMS)
def test_single_item_is_a_conversation(item: bytes) -> None:
    assert read_conversation(item) == Conversation(items=(item,))


def test_saved_conversation_is_read_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "conversation.jsonl"
    path.write_bytes(b"former content")

    save(path, ITEMS)

    assert read_conversation(path.read_bytes()).items == ITEMS
    assert [file.name for file in tmp_path.iterdir()] == ["conversation.jsonl"]


def test_save_writes_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "conversation.jsonl")

    save(link, (CALL,))

    assert link.is_symlink()
    assert (tmp_path / "real" / "conversation.jsonl").read_bytes() == CALL + b"\n"


def test_request_body_keeps_its_other_fields_as_they_are() -> None:
    body = b'{"model":"m","input":"Hi","stream":true,"reasoning":{"effort" : "low"},"temperature":1.0,"store":null}'

    conversation = read_conversation(body)

    assert conversation.items == (user_item("Hi"),)
    assert conversation.request_json == (b'{"model":"m","reasoning":{"effort" : "low"},"temperature":1.0,"store":null}')


def test_request_body_without_more_than_input_adds_nothing() -> None:
    assert read_conversation(b'{"input":[' + CALL + b"]}") == Conversation(items=(CALL,))


def test_websocket_frame_is_a_request_body() -> None:
    frame = b'{"type":"response.create","model":"m","input":[' + CALL + b"]}"

    assert read_conversation(frame) == Conversation(items=(CALL,), request_json=b'{"model":"m"}')


@pytest.mark.parametrize("name", ["background", "conversation", "generate", "previous_response_id", "stream_id"])
def test_request_body_key_of_the_server_is_dropped_only_where_it_says_nothing(name: str) -> None:
    def body(value: str) -> bytes:
        return f'{{"input":"Hi","{name}":{value}}}'.encode()

    assert read_conversation(body("null")).request_json == b""
    assert read_conversation(body('"x"')).request_json == f'{{"{name}":"x"}}'.encode()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the input is empty"),
        (b" \n", "the input is empty"),
        (b'[{"a":1},{"b":}]', "JSON is malformed"),
        (b'{"type":"message"}\n{"type":', "truncated"),
        (b'[{"type":"message"},"words"]', "item 2 is a string, expected an object"),
        (b"[[]]", "item 1 is an array, expected an object"),
        (b"3", "item 1 is a number, expected an object"),
        (b"[null]", "item 1 is null, expected an object"),
        (b'{"type":"message","text":"\xff"}', "byte 26 is not UTF-8"),
        (b'{"input":3}', "`input` is a number, expected an array of items or a text"),
        (b'{"input":{"type":"message"}}', "`input` is an object, expected an array of items or a text"),
        (b'{"input":[1]}', "item 1 is a number"),
        (b'{"messages":[]}', "without `type`, `role` and `input`"),
    ],
)
def test_input_that_is_no_conversation_is_refused_with_what_was_found(data: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_conversation(data)


def test_empty_array_is_left_to_the_server() -> None:
    assert read_conversation(b"[]") == Conversation()


def test_tools_are_read_byte_for_byte() -> None:
    assert read_tools(b'[ {"type" : "function"}, {"type":"web_search"} ]') == [
        b'{"type" : "function"}',
        b'{"type":"web_search"}',
    ]


@pytest.mark.parametrize(
    ("data", "text"), [(b"{}", "found no array"), (b'["x"]', "tool 1 is a string"), (b"[", "truncated")]
)
def test_tools_that_are_none_are_refused(data: bytes, text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_tools(data)


def test_user_item_is_a_message_of_one_text() -> None:
    assert user_item('Köln "☀"\n') == (
        '{"type":"message","role":"user","content":[{"type":"input_text","text":"Köln \\"☀\\"\\n"}]}'.encode()
    )


@pytest.mark.parametrize(
    "data", [b"[" * 5000, b'{"a":' * 5000, b'{"input":' + b"[" * 5000], ids=["array", "lines", "body"]
)
def test_input_that_is_too_deep_is_no_conversation(data: bytes) -> None:
    with pytest.raises(InputError, match="read input: maximum recursion depth"):
        read_conversation(data)
