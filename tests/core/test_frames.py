"""What upstream events mean."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warmline_server.core import events as ev
from warmline_server.core.errors import Heal, Reason, UpstreamFailure
from warmline_server.core.frames import FrameReader

ITEM = b'{"type": "message" ,"id":"msg_1", "content":[ {"text":"h\xc3\xa9"} ]}'


def read(payload: bytes, reader: FrameReader | None = None) -> tuple[list[ev.Emission], UpstreamFailure | None]:
    out: list[ev.Emission] = []
    failure = (reader or FrameReader()).read(payload, 3, out, with_payload=False)
    return out, failure


def events_of(reader: FrameReader, *frames: dict[str, Any]) -> list[object]:
    out: list[ev.Emission] = []
    for frame in frames:
        assert reader.read(json.dumps(frame).encode(), 1, out, with_payload=False) is None
    return [emission.event for emission in out]


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ({"type": "response.created", "response": {"id": "resp_1"}}, ev.Created("resp_1")),
        ({"type": "response.created", "response": {}}, ev.Created("")),
        (
            {"type": "response.output_text.delta", "delta": "a", "item_id": "m", "content_index": 2},
            ev.TextDelta("a", "m", 2),
        ),
        ({"type": "response.output_text.delta", "delta": "a"}, ev.TextDelta("a")),
        ({"type": "response.output_text.delta", "delta": "", "item_id": None}, ev.TextDelta("")),
        (
            {"type": "response.reasoning_text.delta", "delta": "r", "item_id": "i", "content_index": 1},
            ev.ReasoningDelta("r", "i", 1),
        ),
        (
            {"type": "response.reasoning_summary_text.delta", "delta": "s", "item_id": "i", "summary_index": 4},
            ev.ReasoningSummaryDelta("s", "i", 4),
        ),
        (
            {"type": "response.reasoning_summary_part.added", "item_id": "i", "summary_index": 0, "part": {}},
            ev.ReasoningSummaryPartAdded("i", 0),
        ),
        (
            {"type": "response.custom_tool_call_input.delta", "delta": "x", "item_id": "i", "call_id": "c"},
            ev.ToolInputDelta("x", "i", "c"),
        ),
        (
            {"type": "response.custom_tool_call_input.delta", "delta": "x", "call_id": "c"},
            ev.ToolInputDelta("x", "", "c"),
        ),
        (
            {"type": "response.function_call_arguments.delta", "delta": "{", "item_id": "fc_1", "output_index": 0},
            ev.ToolInputDelta("{", "fc_1", ""),
        ),
        ({"type": "response.completed", "response": {"id": "resp_1"}}, ev.Completed("resp_1")),
        (
            {
                "type": "response.completed",
                "response": {
                    "id": "resp_1",
                    "end_turn": False,
                    "usage": {
                        "input_tokens": 10,
                        "input_tokens_details": {"cached_tokens": 7, "cache_write_tokens": 1},
                        "output_tokens": 5,
                        "output_tokens_details": {"reasoning_tokens": 2},
                        "total_tokens": 15,
                    },
                },
            },
            ev.Completed("resp_1", ev.Usage(10, 7, 5, 2, 15), end_turn=False),
        ),
        (
            {
                "type": "response.completed",
                "response": {
                    "id": "r",
                    "usage": {"input_tokens": 1, "input_tokens_details": None, "output_tokens": 2, "total_tokens": 3},
                },
            },
            ev.Completed("r", ev.Usage(1, 0, 2, 0, 3)),
        ),
    ],
)
def test_frame_of_a_known_type_becomes_its_event(frame: dict[str, Any], event: object) -> None:
    out, failure = read(json.dumps(frame).encode())

    assert failure is None
    assert [(e.event, e.attempt, e.upstream_type, e.payload) for e in out] == [(event, 3, frame["type"], None)]


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("response.output_item.added", ev.ItemAdded(ITEM, 1)),
        ("response.output_item.done", ev.ItemDone(ITEM, "message", 1)),
    ],
)
def test_frame_with_an_item_keeps_the_item_byte_for_byte(kind: str, event: object) -> None:
    payload = b'{"type":"' + kind.encode() + b'", "item":' + ITEM + b' ,"output_index":1}'

    assert [e.event for e in read(payload)[0]] == [event]


def test_item_without_a_type_is_passed_on_with_a_blank_one() -> None:
    out, _ = read(b'{"type":"response.output_item.done","item":{"type":7}}')

    assert [e.event for e in out] == [ev.ItemDone(b'{"type":7}', "", None)]


@pytest.mark.conformance("C-076")
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"[1]",
        b"null",
        b'"text"',
        b"{}",
        b'{"type":1}',
        b'{"type":""}',
        b'{"type":"response.output_text.delta"}',
        b'{"type":"response.output_text.delta","delta":5}',
        b'{"type":"response.output_text.delta","delta":"\xff"}',
        b'{"type":"response.output_text.delta","delta":"a"',
        b'{"type":"response.output_text.delta","delta":"a"} trailing',
        b'{"type":"response.reasoning_text.delta","delta":"a"}',
        b'{"type":"response.reasoning_summary_text.delta","delta":"a","summary_index":-1}',
        b'{"type":"response.reasoning_summary_part.added"}',
        b'{"type":"response.custom_tool_call_input.delta","delta":"a"}',
        b'{"type":"response.created"}',
        b'{"type":"response.created","response":7}',
        b'{"type":"response.output_item.done"}',
        b'{"type":"response.output_item.done","item":null}',
        b'{"type":"response.output_item.done","item":[]}',
        b'{"type":"response.output_item.added","item":"x"}',
        b'{"type":"response.output_item.done","item":{"type":"a","text":"\xff"}}',
        b'{"type":"response.output_item.done","item":' + b"[" * 50_000 + b"}",
    ],
)
def test_frame_that_cannot_be_understood_is_skipped_and_counted(payload: bytes) -> None:
    reader = FrameReader()

    out, failure = read(payload, reader)

    assert (out, failure, reader.skipped) == ([], None, 1)


@pytest.mark.conformance("C-076")
@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"response.done"}',
        b'{"type":"response.content_part.added","part":{}}',
        b'{"type":"responsesapi.websocket_timing","timing_metrics":{}}',
        b'{"type":"response.new_thing.delta","delta":{"shape":"unknown"},"item_id":3,"headers":"x","response":[]}',
    ],
)
def test_frame_of_an_unknown_type_is_raw_and_carries_its_payload(payload: bytes) -> None:
    reader = FrameReader()

    out, failure = read(payload, reader)

    assert failure is None
    assert reader.skipped == 0
    assert [(e.event, e.upstream_type, e.payload) for e in out] == [(ev.Raw(), json.loads(payload)["type"], payload)]


def test_payload_is_carried_where_it_is_asked_for() -> None:
    payload = b'{ "type":"response.output_text.delta", "delta":"\\u00e9" }'
    out: list[ev.Emission] = []

    FrameReader().read(payload, 1, out, with_payload=True)

    assert [(e.event, e.payload) for e in out] == [(ev.TextDelta("é"), payload)]


def test_field_of_the_wrong_shape_counts_as_absent_where_it_is_not_needed() -> None:
    out, _ = read(b'{"type":"response.output_text.delta","delta":"a","item_id":5,"content_index":4294967296}')

    assert [e.event for e in out] == [ev.TextDelta("a")]


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b',"response":null',
        b',"response":{}',
        b',"response":{"id":5}',
        b',"response":{"id":"r","usage":[]}',
        b',"response":{"id":"r","usage":{"input_tokens":-1}}',
        b',"response":{"id":"r","usage":{"input_tokens":9223372036854775808}}',
        b',"response":{"id":"r","end_turn":"no"}',
    ],
)
def test_completed_of_a_bad_shape_is_a_failure_that_a_resend_may_heal(response: bytes) -> None:
    out, failure = read(b'{"type":"response.completed"' + response + b"}")

    assert out == []
    assert failure is not None
    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_PROTOCOL, Heal.RESEND)


@pytest.mark.conformance("C-079")
@pytest.mark.parametrize(
    ("response", "event"),
    [
        (
            {"id": "r", "incomplete_details": {"reason": "max_output_tokens"}, "usage": {"output_tokens": 9}},
            ev.Incomplete("max_output_tokens", "r", ev.Usage(output_tokens=9)),
        ),
        ({"id": "r", "incomplete_details": None}, ev.Incomplete("unknown", "r")),
        ({"id": 7, "incomplete_details": {"reason": 7}, "usage": 7}, ev.Incomplete("unknown")),
        (None, ev.Incomplete("unknown")),
    ],
)
def test_incomplete_is_a_terminal_event_with_its_reason(response: object, event: ev.Incomplete) -> None:
    """D-11: not a failure that is resent."""
    out, failure = read(json.dumps({"type": "response.incomplete", "response": response}).encode())

    assert failure is None
    assert [e.event for e in out] == [event]


@pytest.mark.conformance("C-077")
def test_failed_response_is_the_failure_that_its_error_tells() -> None:
    reader = FrameReader()

    out, failure = read(
        b'{"type":"response.failed","response":{"id":"resp_9","error":{"code":"invalid_prompt","message":"no"}}}',
        reader,
    )

    assert out == []
    assert failure is not None
    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_REJECTED, Heal.NEVER)
    assert failure.words is not None
    assert failure.words.message == "no"
    assert reader.response_id == "resp_9"


@pytest.mark.conformance("C-082")
@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"error","error":{"code":"context_length_exceeded","message":"m","param":"p"}}',
        b'{"type":"error","code":"context_length_exceeded","message":"m","param":"p","sequence_number":1}',
    ],
    ids=["nested", "flat"],
)
def test_error_without_a_status_is_a_failure_mapped_by_its_code(payload: bytes) -> None:
    """D-2: in the reference such a frame is ignored and the stream hangs."""
    out, failure = read(payload)

    assert out == []
    assert failure is not None
    assert (failure.reason, failure.heal) == (Reason.CONTEXT_TOO_LONG, Heal.NEVER)
    assert failure.words is not None
    assert (failure.words.status, failure.words.message, failure.words.param) == (None, "m", "p")


@pytest.mark.conformance("C-083")
def test_usage_limit_error_shows_the_limits_before_the_failure() -> None:
    out, failure = read(
        json.dumps(
            {
                "type": "error",
                "status": 429,
                "error": {"type": "usage_limit_reached", "plan_type": "pro", "message": "used up"},
                "headers": {
                    "x-codex-primary-used-percent": 100,
                    "X-Codex-Primary-Window-Minutes": "15",
                    "x-codex-primary-reset-at": 1704074400,
                    "x-request-id": "req_1",
                },
            }
        ).encode()
    )

    limits = ev.RateLimits("codex", primary=ev.RateLimitWindow(100.0, 15, 1704074400), plan_type="pro")
    assert [(e.event, e.attempt, e.upstream_type) for e in out] == [(limits, 3, "")]
    assert failure is not None
    assert (failure.reason, failure.heal) == (Reason.UPSTREAM_QUOTA, Heal.NEVER)
    assert failure.upstream_request_id == "req_1"


@pytest.mark.conformance("C-071")
def test_rate_limit_frame_becomes_limits_with_plan_and_credits() -> None:
    out, _ = read(
        json.dumps(
            {
                "type": "codex.rate_limits",
                "plan_type": "plus",
                "rate_limits": {
                    "primary": {"used_percent": 42, "window_minutes": 60, "reset_at": 1700000000},
                    "secondary": None,
                },
                "credits": {"has_credits": True, "unlimited": False, "balance": "123"},
            }
        ).encode()
    )

    assert [e.event for e in out] == [
        ev.RateLimits(
            "codex",
            primary=ev.RateLimitWindow(42.0, 60, 1700000000),
            credits=ev.Credits(has_credits=True, unlimited=False, balance="123"),
            plan_type="plus",
        )
    ]
    assert out[0].upstream_type == "codex.rate_limits"


@pytest.mark.parametrize("kind", ["response.metadata", "codex.response.metadata"])
def test_metadata_tells_turn_state_etag_and_model_and_is_itself_raw(kind: str) -> None:
    payload = json.dumps(
        {"type": kind, "headers": {"X-Codex-Turn-State": ["ts-1"], "openai-model": "m-1", "x-models-etag": "e"}}
    ).encode()

    out, _ = read(payload)

    assert [(e.event, e.upstream_type, e.payload) for e in out] == [
        (ev.TurnStateSeen("ts-1"), "", None),
        (ev.ModelsEtag("e"), "", None),
        (ev.ServerModel("m-1"), "", None),
        (ev.Raw(), kind, payload),
    ]


def test_turn_state_is_taken_from_metadata_events_only() -> None:
    assert events_of(FrameReader(), {"type": "response.queued", "headers": {"x-codex-turn-state": "ts"}}) == [ev.Raw()]


def test_server_model_is_announced_on_change_only_and_from_headers_only() -> None:
    reader = FrameReader(server_model="m-1")

    told = events_of(
        reader,
        {"type": "response.created", "response": {"id": "r", "model": "other", "headers": {"OpenAI-Model": "m-1"}}},
        {"type": "response.queued", "headers": {"x-openai-model": ["m-2", "m-3"]}},
        {"type": "response.queued", "headers": {"x-openai-model": "m-2"}},
        {
            "type": "response.queued",
            "response": {"headers": {"openai-model": "m-4"}},
            "headers": {"openai-model": "m-5"},
        },
        {"type": "response.queued", "headers": {"openai-model": {"no": "string"}}},
    )

    assert [event for event in told if isinstance(event, ev.ServerModel)] == [
        ev.ServerModel("m-2"),
        ev.ServerModel("m-4"),
    ]
    assert reader.response_model == "other"


def test_reader_keeps_the_response_id_that_was_last_told() -> None:
    reader = FrameReader()

    assert reader.response_id == ""
    events_of(reader, {"type": "response.created", "response": {"id": "resp_1", "model": "m"}})
    events_of(reader, {"type": "response.in_progress", "response": {}})

    assert (reader.response_id, reader.response_model) == ("resp_1", "m")


@given(st.binary(max_size=200))
def test_read_never_raises_on_bytes(payload: bytes) -> None:
    read(payload)


KNOWN = st.sampled_from(
    [
        "response.created",
        "response.output_item.added",
        "response.output_item.done",
        "response.output_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_part.added",
        "response.custom_tool_call_input.delta",
        "response.completed",
        "response.failed",
        "response.incomplete",
        "response.metadata",
        "codex.rate_limits",
        "error",
        "unknown",
    ]
)
FIELDS = ["delta", "item", "item_id", "call_id", "content_index", "summary_index", "response", "headers", "error"]
FIELDS += ["status", "code", "message", "rate_limits", "credits", "plan_type"]
ODD_VALUES: list[object] = [None, True, -1, 1.5, 2**70, "", "a", [], ["a"], [[]], {}, {"type": 1}, {"type": "a"}]
ODD_VALUES += [{"id": 5}, {"id": "r", "usage": "x"}, {"id": "r", "headers": ["x"]}, {"code": 1, "message": {}}]
ODD_VALUES += [{"openai-model": "m", "x-codex-turn-state": 1}, {"primary": {"used_percent": "x"}}]


@given(KNOWN, st.dictionaries(st.sampled_from(FIELDS), st.sampled_from(ODD_VALUES)))
def test_read_of_any_json_never_raises_and_carries_the_payload_at_most_once(kind: str, fields: dict[str, Any]) -> None:
    payload = json.dumps({**fields, "type": kind}).encode()
    out: list[ev.Emission] = []

    FrameReader().read(payload, 1, out, with_payload=True)

    assert [e.payload for e in out if e.upstream_type] in ([], [payload])
    assert all(e.payload is None for e in out if not e.upstream_type)
