"""Items and options from what callers have at hand."""

import json

import pytest

import warmline
from warmline import items
from warmline.v1 import types_pb2


def test_text_is_a_users_message() -> None:
    assert items.item("Hi") == warmline.user("Hi")
    assert warmline.user("Hi").message == types_pb2.TextMessage(role="user", text="Hi")


def test_bytes_are_sent_as_they_are() -> None:
    verbatim = b'{ "type" : "message",\n "n": 1.0, "big": 9007199254740993 }'

    assert items.item(verbatim).json == verbatim


def test_mapping_becomes_json_of_the_same_value() -> None:
    value = {"type": "message", "content": [{"text": "Köln ☀ \ud83d", "n": 9007199254740993}]}

    made = items.item(value).json

    assert json.loads(made) == value
    made.decode()


def test_mapping_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        items.item({"n": float("nan")})


@pytest.mark.parametrize("single", ["Hi", b"{}", {}, warmline.user("Hi")], ids=["str", "bytes", "dict", "Item"])
def test_single_item_stands_for_itself(single: warmline.ItemLike) -> None:
    assert items.items(single) == [items.item(single)]


def test_items_keep_their_order_and_kind() -> None:
    made = items.items([warmline.developer("Be brief."), "Hi", b"{}", warmline.function_output("c", "42")])

    assert [item.WhichOneof("content") for item in made] == ["message", "message", "json", "function_call_output"]
    assert made[3].function_call_output == types_pb2.FunctionCallOutput(call_id="c", output="42")


@pytest.mark.parametrize("role", ["user", "developer", "system", "assistant"])
def test_message_helpers_name_their_role(role: str) -> None:
    assert getattr(warmline, role)("x").message.role == role


def test_options_land_in_their_fields() -> None:
    message = types_pb2.RequestOptions()

    items.set_options(
        message,
        {
            "model": "small",
            "instructions": "Be brief.",
            "tools": [b'{ "type":"function" }', {"type": "web_search"}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "reasoning_effort": "low",
            "reasoning_summary": "auto",
            "verbosity": "high",
            "text_format": {"type": "json_schema"},
            "service_tier": "flex",
            "store": True,
            "include": [],
            "prompt_cache_key": "key",
            "max_output_tokens": 7,
        },
    )

    assert message == types_pb2.RequestOptions(
        model="small",
        instructions="Be brief.",
        tools=types_pb2.ToolList(tools_json=[b'{ "type":"function" }', b'{"type":"web_search"}']),
        tool_choice_json=b'"required"',
        parallel_tool_calls=False,
        reasoning=types_pb2.Reasoning(effort="low", summary="auto"),
        text=types_pb2.TextOptions(verbosity="high", format_json=b'{"type":"json_schema"}'),
        service_tier="flex",
        store=True,
        include=types_pb2.StringList(),
        prompt_cache_key="key",
        max_output_tokens=7,
    )


def test_options_left_out_say_nothing() -> None:
    message = types_pb2.RequestOptions()

    items.set_options(message, {"tools": []})

    assert [field.name for field, _ in message.ListFields()] == ["tools"]


def test_option_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="unknown modle"):
        items.set_options(types_pb2.RequestOptions(), {"modle": "small"})  # type: ignore[typeddict-unknown-key]


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"item":{"a" : 1}}', b'{"a" : 1}'),
        (b' { "x" : [ {"item":0} ] , "item" :\n"\xc3\xbc\\u0041" }', b'"\xc3\xbc\\u0041"'),
        (b'{"x":1}', None),
        (b"{}", None),
        (b"[]", None),
        (b'{"item":', None),
        (b'{"item":"\xff"}', None),
        (b"", None),
    ],
)
def test_verbatim_member_is_the_bytes_of_its_value(payload: bytes, found: bytes | None) -> None:
    assert items.verbatim_member(payload, "item") == found
