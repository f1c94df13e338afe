"""The small model's rules: tools of every kind, reasoning, limits, JSON, and arguments that fit any schema."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response

from warmline_simulator import Simulator, ev, pattern, read
from warmline_simulator.schema import value_for

from .wire_client import Json, ask, calls_of, id_of, open_ws, text_of, types

LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}
FIND = {"type": "function", "name": "find", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("tool", "name", "kind"),
    [
        (LOOK, "look", "function_call"),
        ({"type": "custom", "name": "run"}, "run", "custom_tool_call"),
        ({"type": "local_shell"}, "local_shell", "local_shell_call"),
        ({"type": "shell"}, "shell", "shell_call"),
        ({"type": "apply_patch"}, "apply_patch", "apply_patch_call"),
        ({"type": "computer"}, "computer", "computer_call"),
    ],
)
async def test_a_tool_the_client_runs_ends_the_answer(tool: Json, name: str, kind: str) -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        events = await ask(ws, f"please use the tool {name} on mice", tools=[tool])

    assert [call["type"] for call in calls_of(events)] == [kind]
    assert text_of(events) == ""
    Response.model_validate(events[-1]["response"])


@pytest.mark.parametrize(
    ("tool", "name", "kind"),
    [
        ({"type": "web_search"}, "web_search", "web_search_call"),
        ({"type": "file_search", "vector_store_ids": ["v"]}, "file_search", "file_search_call"),
        ({"type": "code_interpreter", "container": "c"}, "code_interpreter", "code_interpreter_call"),
        ({"type": "image_generation"}, "image_generation", "image_generation_call"),
        ({"type": "mcp", "server_label": "s"}, "mcp", "mcp_call"),
    ],
)
async def test_a_tool_the_service_runs_is_followed_by_an_answer(tool: Json, name: str, kind: str) -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        events = await ask(ws, f"use the tool {name}", tools=[tool])

    assert [item["type"] for item in events[-1]["response"]["output"]] == [kind, "message"]
    assert text_of(events) != ""


@pytest.mark.parametrize(
    ("text", "fields", "called"),
    [
        ("hello", {}, []),
        ("use the tool look", {}, ["look"]),
        ("Use tool `find` now", {}, ["find"]),
        ("call look.", {}, ["look"]),
        ("use the tool look and use the tool find", {}, ["look", "find"]),
        ("use the tool look and use the tool find", {"parallel_tool_calls": False}, ["look"]),
        ("use the tool other", {}, []),
        ("use the tool look", {"tool_choice": "none"}, []),
        ("hello", {"tool_choice": "required"}, ["look"]),
        ("hello", {"tool_choice": {"type": "function", "name": "find"}}, ["find"]),
        ("how is the weather", {}, []),
    ],
)
async def test_what_makes_it_call_a_tool(text: str, fields: Json, called: list[str]) -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        events = await ask(ws, text, tools=[LOOK, FIND], **fields)

    assert [call["name"] for call in calls_of(events)] == called


async def test_every_output_of_a_parallel_call_is_answered() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        first = await ask(ws, "use the tool look, use the tool find", tools=[LOOK, FIND])
        outputs = [ev.function_call_output(call["call_id"], f"via {call['name']}") for call in calls_of(first)]
        second = await ask(ws, outputs, previous_response_id=id_of(first), tools=[LOOK, FIND])

    assert text_of(second).startswith("The tool look answered: via look; The tool find answered: via find. ")
    assert calls_of(second) == []


async def test_it_reasons_when_asked_and_seals_it_when_included() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        plain = await ask(ws, reasoning={"effort": "low"})
        full = await ask(ws, reasoning={"effort": "low", "summary": "auto"}, include=["reasoning.encrypted_content"])
        none = await ask(ws, reasoning={"effort": "none"})

    kinds = [[item["type"] for item in events[-1]["response"]["output"]] for events in (plain, full, none)]
    assert kinds == [["reasoning", "message"], ["reasoning", "message"], ["message"]]
    assert (plain[-1]["response"]["output"][0]["summary"], "encrypted_content" in str(plain)) == ([], False)
    added, done = (event["item"] for event in full if event.get("item", {}).get("type") == "reasoning")
    assert "encrypted_content" not in added
    assert done["encrypted_content"].startswith("gAAAA")
    assert "response.reasoning_summary_text.delta" in types(full)
    assert full[-1]["response"]["usage"]["output_tokens_details"]["reasoning_tokens"] > 0


async def test_reasoning_can_be_sent_back() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        first = await ask(ws, "one", store=False, reasoning={}, include=["reasoning.encrypted_content"])
        items = [ev.user_message("one"), *first[-1]["response"]["output"], ev.user_message("two")]
        second = await ask(ws, items, store=False)

    assert "two" in text_of(second)
    assert len(read.encrypted_contents(sim.requests[1])) == 1


@pytest.mark.parametrize("limit", [16, 20, 1000])
async def test_max_output_tokens_cuts_the_text_at_that_word(limit: int) -> None:
    async with Simulator(words=40) as sim, open_ws(sim) as ws:
        events = await ask(ws, "hi", max_output_tokens=limit)

    response = events[-1]["response"]
    words = text_of(events).split()
    assert response["status"] == ("completed" if limit == 1000 else "incomplete")
    assert response["usage"]["output_tokens"] == len(words) == min(limit, 43)
    if limit != 1000:
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["output"][0]["status"] == "incomplete"


async def test_json_formats_are_answered_with_json_that_fits() -> None:
    schema = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 7}}, "required": ["score"]}
    wanted = {"type": "json_schema", "name": "n", "schema": schema, "strict": True}
    async with Simulator() as sim, open_ws(sim) as ws:
        shaped = await ask(ws, text={"format": wanted})
        free = await ask(ws, "echo me", text={"format": {"type": "json_object"}})

    assert json.loads(text_of(shaped)) == {"score": 7}
    assert json.loads(text_of(free)) == {"answer": "echo me"}


async def test_metadata_sizes_one_answer() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        long = text_of(await ask(ws, "hi", metadata={"sim_words": "300"}))
        odd = text_of(await ask(ws, "hi", metadata={"sim_words": "many", "sim_pace_s": "-1"}))

    assert len(long.split()) == 303
    assert len(odd.split()) == 27


def test_values_for_the_odder_corners_of_json_schema() -> None:
    point = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}, "required": ["next"]}
    tree = {"$defs": {"node": node}, "$ref": "#/$defs/node"}
    assert value_for({"$defs": {"p": point}, "$ref": "#/$defs/p"}) == {"x": 1}
    assert value_for({"anyOf": [{"type": "null"}, {"type": "string"}]}) is None
    assert value_for({"allOf": [point, {"properties": {"y": {"const": 2}}, "required": ["y"]}]}) == {"x": 1, "y": 2}
    assert value_for({"type": ["null", "integer"], "exclusiveMinimum": 4}) == 5
    assert value_for({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}) == 0.5
    assert value_for({"type": "integer", "multipleOf": 5, "minimum": 7}) == 10
    assert value_for({"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "uniqueItems": True}) == ["a", "b"]
    assert value_for({"type": "array", "prefixItems": [{"type": "boolean"}], "items": False, "maxItems": 1}) == [True]
    assert value_for({"type": "string", "minLength": 9}, word="abc") == "abcabcabcabc"
    assert value_for({"type": "string", "maxLength": 2}, word="abc") == "ab"
    assert value_for({"type": "string", "format": "date"}) == "2026-01-02"
    assert value_for({"type": "object", "minProperties": 1}) == {"key_0": "sample"}
    assert value_for(True) == value_for({}) == "sample"
    assert isinstance(value_for(tree), dict)
    assert "{'next': {}}" in str(value_for(tree))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from([r"\d", "[a-f]", "x", r"[^a]", "(?:ab|c)", r"\w"]))
def test_examples_of_patterns_match_them(least: int, more: int, unit: str) -> None:
    shape = f"^{unit}{{{least},{least + more}}}-{unit}+$"
    made = pattern.example(shape)

    assert made is not None
    assert re.search(shape, made)


def test_patterns_beyond_the_generator_or_broken_give_nothing() -> None:
    assert pattern.example(r"(a)\1(?=b)") is None
    assert pattern.example("(") is None
    assert value_for({"type": "string", "pattern": "("}) == "sample"


SIZES = st.tuples(st.integers(0, 9), st.integers(0, 9))
SIMPLE = st.one_of(
    st.sampled_from([{"type": name} for name in ("string", "boolean", "null", "number")]),
    SIZES.map(lambda each: {"type": "integer", "minimum": each[0] - 5, "maximum": each[0] - 5 + each[1]}),
    SIZES.map(lambda each: {"type": "string", "minLength": each[0], "maxLength": sum(each)}),
    st.lists(st.integers(), min_size=1, max_size=3).map(lambda values: {"enum": values}),
)
SCHEMAS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.dictionaries(st.text("abc", min_size=1), inner, max_size=3).map(
            lambda each: {"type": "object", "properties": each, "required": list(each), "additionalProperties": False}
        ),
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(SCHEMAS)
def test_values_satisfy_their_schema(schema: Json) -> None:
    assert satisfies(value_for(schema), schema)


def satisfies(value: Any, schema: Json) -> bool:
    """A validator of its own for the schemas made here, so that the generator is not checked against itself."""
    if "enum" in schema:
        return value in schema["enum"]
    match schema["type"]:
        case "string":
            return isinstance(value, str) and schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 1e9)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "number":
            return isinstance(value, int | float)
        case "integer":
            return isinstance(value, int) and schema["minimum"] <= value <= schema["maximum"]
        case "array":
            return len(value) >= schema["minItems"] and all(satisfies(each, schema["items"]) for each in value)
        case _:
            return set(value) == set(schema["required"]) and all(
                satisfies(each, schema["properties"][name]) for name, each in value.items()
            )
