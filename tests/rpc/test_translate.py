"""Requests as domain values, events and sessions as messages: every field, and nothing that was not said."""

import uuid
from typing import Any, get_args

import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from warmline.v1 import session_service_pb2 as sessions
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_server.core import events as ev
from warmline_server.core.config import SessionConfig, Source, WarmUp
from warmline_server.core.errors import CallerError, Reason
from warmline_server.core.retry import RetryMode
from warmline_server.core.slot import SlotState
from warmline_server.rpc import translate, translate_events
from warmline_server.session.call_spec import OnBusy

CONVERSATION_ID = str(uuid.UUID(int=7))


def field_of(error: pytest.ExceptionInfo[CallerError]) -> str:
    assert error.value.reason is Reason.INVALID_REQUEST
    return error.value.field


# Requests


def test_empty_config_says_nothing() -> None:
    assert translate.config(types.SessionConfig(), "config") == SessionConfig()


def test_config_is_taken_field_by_field() -> None:
    message = types.SessionConfig(
        upstream="mine",
        warm_up=types.WARM_UP_MODE_GENERATE_FALSE,
        conversation_id=CONVERSATION_ID,
        lineage=types.Lineage(
            source=types.SESSION_SOURCE_SUB_AGENT,
            sub_agent_label="researcher",
            parent_thread_id="parent",
            installation_id="installation",
        ),
        request_defaults=types.RequestOptions(model="m"),
        retry_policy=types.RetryPolicy(stream_max_retries=0, request_max_retries=100),
        fallback_policy=types.FallbackPolicy(
            fallback_after=Duration(nanos=500_000_000), latch_reprobe=Duration(), http_only=True
        ),
        limits=types.SessionLimits(
            idle_ttl=Duration(seconds=60),
            max_turn_duration=Duration(seconds=30),
            max_lanes=3,
            max_transcript_bytes=0,
        ),
        labels={"team": "a"},
    )
    config = translate.config(message, "config")

    assert config == SessionConfig(
        given=message.SerializeToString(deterministic=True),
        upstream="mine",
        warm_up=WarmUp.GENERATE_FALSE,
        conversation_id=CONVERSATION_ID,
        source=Source.SUB_AGENT,
        sub_agent_label="researcher",
        parent_thread_id="parent",
        installation_id="installation",
        defaults={"model": b'"m"'},
        stream_max_retries=0,
        request_max_retries=100,
        fallback_after_s=0.5,
        latch_reprobe_s=0.0,
        http_only=True,
        idle_ttl_s=60.0,
        max_turn_duration_s=30.0,
        max_lanes=3,
        max_transcript_bytes=0,
        labels={"team": "a"},
    )


def test_equal_configs_are_equal_whatever_order_they_came_in() -> None:
    one, two = types.SessionConfig(labels={"a": "1", "b": "2"}), types.SessionConfig(labels={"b": "2", "a": "1"})

    assert translate.config(one, "config").given == translate.config(two, "config").given


OPTIONS: list[tuple[dict[str, Any], dict[str, bytes]]] = [
    ({}, {}),
    ({"model": "m"}, {"model": b'"m"'}),
    ({"instructions": ""}, {"instructions": b'""'}),
    ({"service_tier": "flex"}, {"service_tier": b'"flex"'}),
    ({"prompt_cache_key": "k"}, {"prompt_cache_key": b'"k"'}),
    ({"parallel_tool_calls": False}, {"parallel_tool_calls": b"false"}),
    ({"store": True}, {"store": b"true"}),
    ({"max_output_tokens": 1}, {"max_output_tokens": b"1"}),
    ({"tools": types.ToolList()}, {"tools": b"[]"}),
    ({"tools": types.ToolList(tools_json=[b'{"b": 1.0}', b"{ }"])}, {"tools": b'[{"b": 1.0},{ }]'}),
    ({"tool_choice_json": b'"none"'}, {"tool_choice": b'"none"'}),
    ({"tool_choice_json": b'{ "type":"x"}'}, {"tool_choice": b'{ "type":"x"}'}),
    ({"include": types.StringList()}, {"include": b"[]"}),
    ({"include": types.StringList(values=["a", "b"])}, {"include": b'["a","b"]'}),
    ({"reasoning": types.Reasoning()}, {"reasoning": b"{}"}),
    ({"reasoning": types.Reasoning(effort="low")}, {"reasoning": b'{"effort":"low"}'}),
    ({"reasoning": types.Reasoning(summary="auto")}, {"reasoning": b'{"summary":"auto"}'}),
    ({"reasoning": types.Reasoning(effort="low", summary="none")}, {"reasoning": b'{"effort":"low"}'}),
    ({"text": types.TextOptions()}, {"text": b"{}"}),
    (
        {"text": types.TextOptions(verbosity="low", format_json=b'{ "type":"x" }')},
        {"text": b'{"verbosity":"low","format":{ "type":"x" }}'},
    ),
]


@pytest.mark.parametrize(("given", "expected"), OPTIONS)
def test_option_is_a_field_of_the_body_and_an_absent_one_is_none(
    given: dict[str, Any], expected: dict[str, bytes]
) -> None:
    assert translate.options(types.RequestOptions(**given), "options") == expected


def test_every_option_of_the_contract_is_translated() -> None:
    named = {name for given, _ in OPTIONS for name in given}

    assert named == {field.name for field in types.RequestOptions.DESCRIPTOR.fields}


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (types.Item(json=b' { "type" : "x" } '), b' { "type" : "x" } '),
        (
            types.Item(message=types.TextMessage(role="user", text='a "b"\n☀')),
            '{"type":"message","role":"user","content":[{"type":"input_text","text":"a \\"b\\"\\n☀"}]}'.encode(),
        ),
        (
            types.Item(message=types.TextMessage(role="assistant", text="a")),
            b'{"type":"message","role":"assistant","content":[{"type":"output_text","text":"a"}]}',
        ),
        (
            types.Item(function_call_output=types.FunctionCallOutput(call_id="c", output="")),
            b'{"type":"function_call_output","call_id":"c","output":""}',
        ),
    ],
    ids=["verbatim", "message", "assistant", "output"],
)
def test_item_is_json(item: types.Item, expected: bytes) -> None:
    assert translate.items([item], "input") == (expected,)


@pytest.mark.parametrize("value", ["a", "A-Z_0.9", "s" * 64, "..", "-"])
def test_name_of_allowed_characters_is_taken(value: str) -> None:
    assert translate.name(value, "session_id") == value


@pytest.mark.parametrize("value", ["", "s" * 65, "a b", "a/b", "ü", "a\n", "\x00"])
def test_name_of_others_is_refused(value: str) -> None:
    with pytest.raises(CallerError) as error:
        translate.name(value, "session_id")

    assert field_of(error) == "session_id"


def test_lane_may_be_blank() -> None:
    assert translate.name("", "lane", blank_is="") == ""


def test_identifier_is_the_callers_or_made_here() -> None:
    assert translate.identifier("any printable {~}", "turn_id") == "any printable {~}"
    assert translate.identifier("t" * 128, "turn_id") == "t" * 128
    made = {translate.identifier("", "turn_id") for _ in range(10)}
    assert len(made) == 10
    assert all(uuid.UUID(value) for value in made)


@pytest.mark.parametrize(
    ("message", "expected"),
    [(Duration(seconds=2, nanos=500_000_000), 2.5), (Duration(nanos=1), 1e-9), (Duration(), 0.0)],
)
def test_duration_is_seconds(message: Duration, expected: float) -> None:
    assert translate.seconds(message, "x", zero_allowed=True) == expected
    assert translate_events.duration(expected) == message


@pytest.mark.parametrize(
    "message", [Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=1, nanos=-2_000_000_000)]
)
def test_negative_duration_is_refused(message: Duration) -> None:
    with pytest.raises(CallerError) as error:
        translate.seconds(message, "x", zero_allowed=True)

    assert field_of(error) == "x"


@pytest.mark.parametrize("size", [1, 7])
def test_pages_have_every_value_once(size: int) -> None:
    values: Any = [type("S", (), {"session_id": f"s{number:02}"})() for number in range(20)]
    seen: list[Any] = []
    token = ""
    while True:
        page, token = translate.page(values, size, token)
        assert len(page) <= size
        seen += page
        if not token:
            break

    assert seen == values


ENUMS: list[tuple[Any, dict[Any, Any], Any]] = [
    (types.WarmUpMode, dict(translate.WARM_UPS), WarmUp),
    (types.SessionSource, dict(translate.SOURCES), Source),
    (turns.RetryMode, dict(translate.RETRIES), RetryMode),
    (turns.BusyMode, dict(translate.BUSY), OnBusy),
]


@pytest.mark.parametrize(
    ("contract", "table", "domain"), ENUMS, ids=lambda value: getattr(value, "DESCRIPTOR", None) and ""
)
def test_every_value_of_a_callers_enum_has_its_meaning(contract: Any, table: dict[Any, Any], domain: Any) -> None:
    """Each by its name; UNSPECIFIED is what the contract says that it is."""
    assert set(table) == set(contract.values())
    for number, meaning in table.items():
        name = contract.Name(number)
        if not name.endswith("_UNSPECIFIED"):
            assert name.endswith(f"_{meaning.name}")
    assert set(domain) <= set(table.values())


def test_modes_that_are_not_told_are_the_contracts_defaults() -> None:
    assert translate.WARM_UPS[0] is None, "the operator's"
    assert translate.RETRIES[0] is RetryMode.BEFORE_OUTPUT
    assert translate.BUSY[0] is OnBusy.REJECT


TOLD: list[tuple[Any, dict[Any, Any], Any]] = [
    (types.Transport, dict(translate_events.TRANSPORTS), ev.Transport),
    (types.SlotOutcome, dict(translate_events.SLOT_OUTCOMES), ev.SlotOutcome),
    (types.FullReason, {k: v for k, v in translate_events.FULL_REASONS.items() if k is not None}, ev.FullReason),
]


@pytest.mark.parametrize(("contract", "table", "domain"), TOLD)
def test_every_value_of_ours_has_its_name_in_the_contract(contract: Any, table: dict[Any, Any], domain: Any) -> None:
    assert set(table) == set(domain)
    assert {contract.Name(number).endswith(f"_{value.name}") for value, number in table.items()} == {True}
    assert set(table.values()) == set(contract.values()) - {0}


def test_closed_slot_is_shown_as_idle() -> None:
    assert set(translate.SLOT_STATES) == set(SlotState)
    assert translate.SLOT_STATES[SlotState.CLOSED] == sessions.SLOT_STATE_IDLE


# Events

USAGE = ev.Usage(10, 4, 5, 2, 15)
USAGE_MESSAGE = types.Usage(
    input_tokens=10, cached_input_tokens=4, output_tokens=5, reasoning_output_tokens=2, total_tokens=15
)
EVENTS: list[tuple[Any, Message]] = [
    (
        ev.Admitted("t", "r", "c", True),
        turns.Admitted(turn_id="t", request_id="r", conversation_id="c", session_created=True),
    ),
    (
        ev.AttemptStarted("a", ev.Transport.WEBSOCKET, ev.SlotOutcome.REUSED, "s", None, None),
        turns.AttemptStarted(
            attempt_id="a",
            transport=types.TRANSPORT_WEBSOCKET,
            slot_outcome=types.SLOT_OUTCOME_REUSED,
            connection_id="s",
            incremental=True,
        ),
    ),
    (
        ev.AttemptStarted(
            "a", ev.Transport.HTTP, ev.SlotOutcome.NONE, "", ev.FullReason.NOT_A_PREFIX, ev.Mismatch(input_index=0)
        ),
        turns.AttemptStarted(
            attempt_id="a",
            transport=types.TRANSPORT_HTTP,
            slot_outcome=types.SLOT_OUTCOME_NONE,
            full_reason=types.FULL_REASON_NOT_A_PREFIX,
            first_mismatch=types.FirstMismatch(input_index=0),
        ),
    ),
    (
        ev.Retrying("UPSTREAM_IDLE", 2, 5, 0.4, "resp", None, None),
        turns.Retrying(
            reason="UPSTREAM_IDLE", retry=2, max_retries=5, delay=Duration(nanos=400_000_000), response_id="resp"
        ),
    ),
    (
        ev.Retrying("UPSTREAM_FAILED", 1, 5, 0.0, "", "req", 500),
        turns.Retrying(
            reason="UPSTREAM_FAILED",
            retry=1,
            max_retries=5,
            delay=Duration(),
            upstream_request_id="req",
            upstream_status=500,
        ),
    ),
    (ev.FellBack(True, "upgrade_required"), turns.FellBack(latched=True, reason="upgrade_required")),
    (ev.Restarted(2, (3, 5)), turns.Restarted(attempt=2, kept_item_sequences=[3, 5])),
    (ev.Created("resp"), turns.ResponseCreated(response_id="resp")),
    (ev.ItemAdded(b'{"a": 1}', 0), turns.ItemAdded(item=types.Item(json=b'{"a": 1}'), output_index=0)),
    (ev.ItemDone(b'{"a": 1}', "x", None), turns.ItemDone(item=types.Item(json=b'{"a": 1}'))),
    (ev.TextDelta("a", "i", 1), turns.TextDelta(delta="a", item_id="i", content_index=1)),
    (ev.TextDelta(""), turns.TextDelta()),
    (ev.ReasoningDelta("a", "i", 1), turns.ReasoningDelta(delta="a", item_id="i", content_index=1)),
    (ev.ReasoningSummaryDelta("a", "i", 1), turns.ReasoningSummaryDelta(delta="a", item_id="i", summary_index=1)),
    (ev.ReasoningSummaryPartAdded("i", 1), turns.ReasoningSummaryPartAdded(item_id="i", summary_index=1)),
    (ev.ToolInputDelta("a", "i", "c"), turns.ToolInputDelta(delta="a", item_id="i", call_id="c")),
    (
        ev.RateLimits("codex", "Codex", ev.RateLimitWindow(99.5, 60, 17), None, ev.Credits(True, False, "7")),
        types.RateLimitSnapshot(
            limit_id="codex",
            limit_name="Codex",
            primary=types.RateLimitWindow(used_percent=99.5, window_minutes=60, reset_time=Timestamp(seconds=17)),
            credits=types.RateLimitCredits(has_credits=True, balance="7"),
        ),
    ),
    (
        ev.RateLimits("x", secondary=ev.RateLimitWindow(0.0), plan_type="pro"),
        types.RateLimitSnapshot(limit_id="x", secondary=types.RateLimitWindow(), plan_type="pro"),
    ),
    (ev.ServerModel("m"), turns.ServerModel(model="m")),
    (ev.ModelsEtag("e"), turns.ModelsEtag(etag="e")),
    (ev.ReasoningIncluded(), turns.ReasoningIncluded(included=True)),
    (
        ev.Completed("resp", USAGE, False),
        turns.Completed(
            response_id="resp", usage=USAGE_MESSAGE, end_turn=False, upstream_request_id="req", history_position=7
        ),
    ),
    (ev.Completed("resp"), turns.Completed(response_id="resp", upstream_request_id="req", history_position=7)),
    (
        ev.Incomplete("max_output_tokens", "resp", USAGE),
        turns.Incomplete(
            reason="max_output_tokens",
            response_id="resp",
            usage=USAGE_MESSAGE,
            upstream_request_id="req",
            history_position=7,
        ),
    ),
    (ev.Raw(), turns.RawEvent()),
]


@pytest.mark.parametrize(("event", "expected"), EVENTS, ids=lambda value: type(value).__name__)
def test_event_has_its_member_with_all_of_its_fields(event: Any, expected: Message) -> None:
    emission = ev.Emission(event, 2, "response.x", None, upstream_request_id="req", history_position=7)
    message = translate_events.to_proto(emission, 5, raw=False)

    assert (message.sequence, message.attempt, message.upstream_type) == (5, 2, "response.x")
    assert not message.HasField("payload_json")
    member = message.WhichOneof("event")
    assert member is not None
    assert getattr(message, member) == expected


def test_every_event_is_translated_and_every_member_used() -> None:
    told = {type(event) for event, _ in EVENTS}
    assert told == {*get_args(ev.ModelEvent), *get_args(ev.ServiceEvent)} - {ev.TurnStateSeen}, "that one is the lane's"

    messages = [translate_events.to_proto(ev.Emission(event), 1, raw=False) for event, _ in EVENTS]
    members = {field.name for field in turns.TurnEvent.DESCRIPTOR.oneofs_by_name["event"].fields}
    assert {message.WhichOneof("event") for message in messages} == members


def test_upstream_request_id_that_is_unknown_is_absent() -> None:
    message = translate_events.to_proto(ev.Emission(ev.Completed("resp")), 1, raw=False)

    assert not message.completed.HasField("upstream_request_id")
    assert not message.completed.HasField("usage")
    assert not message.completed.HasField("end_turn")


def test_payload_goes_beside_the_typed_form_where_there_is_one() -> None:
    payload = b'{"type":"response.output_text.delta","delta":"a"}'
    message = translate_events.to_proto(ev.Emission(ev.TextDelta("a"), 1, "x", payload), 1, raw=False)

    assert (message.payload_json, message.text_delta.delta) == (payload, "a")


def test_raw_takes_the_providers_events_but_for_the_last() -> None:
    emissions = [
        ev.Emission(ev.Admitted("t", "r", "c", False)),
        ev.Emission(ev.ServerModel("m"), 1),
        ev.Emission(ev.TextDelta("a"), 1, "x", b"{}"),
        ev.Emission(ev.Incomplete("why"), 1, "y", b"{}"),
    ]
    messages = [translate_events.to_proto(emission, 1, raw=True) for emission in emissions]

    assert [message.WhichOneof("event") for message in messages] == ["admitted", "server_model", "raw", "incomplete"]


def test_names_of_our_fields_are_the_contracts() -> None:
    """Members are filled by name: a field that one side renames would be left out in silence."""
    for event, expected in EVENTS:
        fields = {field.name for field in msgspec.structs.fields(type(event))}
        known = {field.name for field in expected.DESCRIPTOR.fields}
        special = {"item_type", "delay_s", "mismatch"}
        assert fields - special <= known, type(event).__name__
