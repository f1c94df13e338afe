"""What an agent sends goes up as it is, and what the provider sent comes back as it came: no byte is written anew."""

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from e2e.kit import completed, config, item, turn_request
from e2e.line import Line, open_line
from warmline.v1 import turn_service_pb2 as turns
from warmline.v1 import types_pb2 as types
from warmline_simulator import Reply, Script
from warmline_simulator.records import RequestRecord

# Every way in which writing JSON anew would show: spaces, escapes, key order, spellings of numbers and of characters.
CHARACTERS = "K\\u00f6ln Köln \\u2600 ☀ \\ud83d\\ude00 😀 \\/ / \\u0000 \\u007f"
SENT = (
    b'{"type":"message","role":"user","content":[{"type":"input_text","text":"plain"}]}',
    b'  {\t"role" : "user" ,\r\n "type":"message", "content":[ {"text":"spaced", "type":"input_text" } ] }  ',
    b'{"type":"message","role":"user","content":"%b"}' % CHARACTERS.encode(),
    b'{"type":"message","role":"user","content":"n","n":[1,1.0,1.00,1e5,1E+5,-0.0,-0,0.1,9007199254740993]}',
    b'{"type":"message","role":"user","content":"b","n":[123456789012345678901234567890,1e-400,0.30000000000000004]}',
    b'{"z":1,"a":{"z":null,"":true},"type":"message","role":"user","content":"order"}',
    b'{"type":"message","role":"user","content":"nested","x":' + b"[" * 100 + b"]" * 100 + b"}",
    b'{"type":"reasoning","id":"rs_1","summary":[ ],"encrypted_content":"gAAAAABo+/zz=="}',
    b'{"id":"fc_1","type":"function_call","call_id":"call_1","name":"look","arguments":"{\\"zoom\\": 1.0}"}',
    b'{"type":"function_call_output", "call_id":"call_1", "output":"9007199254740993"}',
    b'{"type":"new_kind_of_item","whatever":{"b":1.50,"a":[{},[ ]]}}',
)
ANSWERED = (
    b'{"type":"reasoning", "id":"rs_2","summary":[],"encrypted_content":"gBBB\\u002b=="}',
    b'{"id":"msg_2","status":"completed","type":"message","role":"assistant","n":1.0,'
    b'"content":[{"type":"output_text","text":"%b","annotations":[ ],"x":1E2}]}' % CHARACTERS.encode(),
    b'{"type":"unheard_of","id":"x_1","big":123456789012345678901234567890,"small":1.10}',
)


def events_of(response_id: str) -> list[str]:
    """A response whose bytes are known."""
    return [
        f'{{"type":"response.created","response":{{"id":"{response_id}"}} }}',
        *(f'{{ "item":{done.decode()},"output_index":0,"type":"response.output_item.done"}}' for done in ANSWERED),
        f'{{"type":"response.completed","response":{{"id":"{response_id}","usage":null}}}}',
    ]


def line_of(transport: str, *replies: Reply) -> AbstractAsyncContextManager[Line]:
    return open_line(Script(creates=replies) if transport == "ws" else Script(posts=replies))


def request_of(transport: str, items: tuple[bytes, ...], **fields: Any) -> turns.StreamTurnRequest:
    session_config = config(fallback_policy=types.FallbackPolicy(http_only=transport == "http"))
    return turn_request("one", session_config=session_config, input=[item(json) for json in items], **fields)


def sent_items(record: RequestRecord) -> bytes:
    """The value of `input` as it stood in the request, without its brackets; it ends before what the server adds."""
    sent = record.raw[record.raw.index(b'"input":[') + len(b'"input":[') :]
    return sent[: sent.rindex(b"]")]


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_items_go_up_and_come_back_as_they_are(transport: str) -> None:
    replies = [Reply(events=events_of(f"resp_{number}")) for number in range(3)]
    async with line_of(transport, *replies) as line:
        first = await completed(line, request_of(transport, SENT))
        returned = tuple(event.item_done.item.json for event in first if event.HasField("item_done"))
        conversation = (*SENT, *returned, SENT[1])
        await completed(line, request_of(transport, conversation))
        await completed(line, request_of(transport, conversation, lane="other"))
        sent = [sent_items(record) for record in line.sim.requests]

    whole = b",".join((*SENT, *ANSWERED, SENT[1]))
    assert returned == ANSWERED
    assert sent == [b",".join(SENT), SENT[1] if transport == "ws" else whole, whole]


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_items_that_were_written_anew_are_still_known(transport: str) -> None:
    """An agent may re-serialise what it got: it is the same conversation, and what is new goes up as it was written."""
    replies = [Reply(events=events_of(f"resp_{number}")) for number in range(2)]
    async with line_of(transport, *replies) as line:
        await completed(line, request_of(transport, SENT[:1]))
        again = tuple(json.dumps(json.loads(sent), indent=1).encode() for sent in (SENT[0], *ANSWERED))
        await completed(line, request_of(transport, (*again, SENT[2])))
        sent = sent_items(line.sim.requests[1])

    assert sent == (SENT[2] if transport == "ws" else b",".join((*again, SENT[2])))


@pytest.mark.parametrize("transport", ["ws", "http"])
@pytest.mark.parametrize("mode", [turns.EVENT_MODE_RAW, turns.EVENT_MODE_BOTH], ids=["RAW", "BOTH"])
async def test_events_come_as_they_were_sent_where_the_caller_wants_them(
    transport: str, mode: "turns.EventMode.ValueType"
) -> None:
    async with line_of(transport, Reply(events=events_of("resp_1"))) as line:
        events = await completed(line, request_of(transport, SENT[:1], events=mode))

    payloads = [event.payload_json.decode() for event in events if event.HasField("payload_json")]
    assert payloads == events_of("resp_1")
    kinds = {event.WhichOneof("event") for event in events if event.upstream_type == "response.output_item.done"}
    assert kinds == ({"raw"} if mode == turns.EVENT_MODE_RAW else {"item_done"})


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_python_client_gives_items_that_go_back_as_they_came(transport: str) -> None:
    session_config = config(fallback_policy=types.FallbackPolicy(http_only=transport == "http"))
    async with line_of(transport, *[Reply(events=events_of(f"resp_{number}")) for number in range(2)]) as line:
        session = line.client.session("one", session_config)
        async with session.turn([*SENT]) as turn:
            result = await turn.result()
        async with session.turn([*SENT, *result.items, SENT[1]], lane="other") as turn:
            await turn.result()
        sent = [sent_items(record) for record in line.sim.requests]

    assert result.items == ANSWERED
    assert sent == [b",".join(SENT), b",".join((*SENT, *ANSWERED, SENT[1]))]


@pytest.mark.parametrize("transport", ["ws", "http"])
async def test_half_of_an_emoji_costs_nothing(transport: str) -> None:
    """A model, or whoever cuts its text, may leave that; JSON can write it, and what holds it is still delivered."""
    cut = b'{"id":"msg_3","type":"message","role":"assistant","content":[{"type":"output_text","text":"cut \\ud83d"}]}'
    steps = [
        '{"type":"response.created","response":{"id":"resp_1"}}',
        '{"type":"response.output_text.delta","delta":"cut \\ud83d","item_id":"msg_3"}',
        f'{{"type":"response.output_item.done","item":{cut.decode()}}}',
        '{"type":"response.completed","response":{"id":"resp_1"}}',
    ]
    async with line_of(transport, Reply(events=steps)) as line:
        events = await completed(line, request_of(transport, SENT[:1]))

    assert [event.item_done.item.json for event in events if event.HasField("item_done")] == [cut]
    assert [event.text_delta.delta[:4] for event in events if event.HasField("text_delta")] == ["cut "]
