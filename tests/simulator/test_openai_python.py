"""The OpenAI Python SDK, unchanged, against the simulator: streams, sockets, tools, errors, retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall
from pydantic import BaseModel
from websockets.exceptions import InvalidStatus

from warmline_simulator import Connection, Drop, Reply, Script, Simulator, ev

KEY = "sk-simulator"
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@asynccontextmanager
async def client_of(sim: Simulator, **options: Any) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=sim.base_url, api_key=KEY, **options) as client:
        yield client


async def test_http_streaming_ends_with_the_final_response() -> None:
    async with Simulator(tokens={KEY}) as sim, client_of(sim) as client:
        manager = client.responses.stream(model="sim-large", input="tell me about herons")
        async with manager as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()

    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "tell me about herons" in final.output_text
    assert final.usage is not None
    assert final.usage.output_tokens > 0
    assert final.id == sim.requests[0].response_id


async def test_http_create_has_the_request_id_of_the_headers() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        response = await client.responses.create(model="sim-large", input="hi")

    assert response.status == "completed"
    assert response._request_id == sim.requests[0].request_id


async def test_http_parses_structured_output() -> None:
    class Bird(BaseModel):
        name: str
        legs: int

    async with Simulator() as sim, client_of(sim) as client:
        response = await client.responses.parse(model="sim-large", input="heron", text_format=Bird)

    assert response.output_parsed == Bird(name="heron", legs=1)


async def test_tool_loop_over_http_chains_by_id() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        first = await client.responses.create(model="m", input="what is the weather in Oslo", tools=[WEATHER])
        call = first.output[0]
        assert isinstance(call, ResponseFunctionToolCall)
        second = await client.responses.create(
            model="m",
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
            tools=[WEATHER],
        )

    assert (call.name, call.arguments) == ("get_weather", '{"city":"Oslo"}')
    assert "The tool get_weather answered: rain" in second.output_text
    assert sim.requests[1].hydrated


async def test_websocket_tool_loop_on_one_socket() -> None:
    async with Simulator(tokens={KEY}) as sim, client_of(sim) as client, client.responses.connect() as connection:
        await connection.response.create(model="m", input="what is the weather in Oslo", tools=[WEATHER], store=False)
        first = await _until_completed(connection)
        call = first.output[0]
        await connection.response.create(
            model="m",
            store=False,
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        )
        second = await _until_completed(connection)

    assert "The tool get_weather answered: rain" in second.output_text
    assert len(sim.handshakes) == 1
    assert sim.handshakes[0].headers["authorization"] == f"Bearer {KEY}"
    assert [record.previous_response_id for record in sim.requests] == [None, first.id]


async def _until_completed(connection: Any) -> Any:
    async for event in connection:
        assert event.type != "error", event
        if event.type == "response.completed":
            return event.response
    raise AssertionError("the socket ended before response.completed")


async def test_websocket_lanes_warm_ups_and_errors_are_typed() -> None:
    async with Simulator() as sim, client_of(sim) as client, _connected(client) as connection:
        await connection.response.create(model="m", input="prepare", generate=False, stream_id="a")
        created, warm = await connection.recv(), await connection.recv()
        await connection.response.create(model="m", input="hi", previous_response_id="resp_none")
        error = await connection.recv()

    assert (created.type, warm.type) == ("response.created", "response.completed")
    assert (warm.stream_id, warm.response.usage.output_tokens) == ("a", 0)
    assert error.type == "error"
    assert (error.status, error.error.code) == (400, "previous_response_not_found")


@asynccontextmanager
async def _connected(client: AsyncOpenAI, **options: Any) -> AsyncIterator[Any]:
    """A socket whose events are not narrowed: the tests look at fields of many kinds."""
    async with client.responses.connect(**options) as connection:
        yield connection


async def test_websocket_steering() -> None:
    simulator = Simulator(pace_s=0.005, words=2000)
    async with simulator as sim, client_of(sim) as client, _connected(client) as connection:
        await connection.response.create(model="m", input="talk for long")
        created = await connection.recv()
        await connection.response.steer(input="enough", previous_response_id=created.response.id)
        events = [await connection.recv()]
        while events[-1].type != "response.created":
            events.append(await connection.recv())

    assert "response.steer.accepted" in [event.type for event in events]
    assert events[-2].response.incomplete_details.reason == "steered"
    assert events[-1].response.previous_response_id == created.response.id


async def test_websocket_reconnects_by_the_sdks_own_rules() -> None:
    script = Script(connections=[Connection(replies=[Reply(events=[ev.created(), Drop()])]), Connection()])
    options = {"on_reconnecting": lambda _: None, "initial_delay": 0.001, "max_retries": 3}
    async with Simulator(script) as sim, client_of(sim) as client, _connected(client, **options) as connection:
        await connection.response.create(model="m", input="hi")
        assert (await connection.recv()).type == "response.created"
        events = connection.__aiter__()
        receiving = asyncio.ensure_future(anext(events))
        await sim.wait_for_answered_handshakes(2)
        await connection.response.create(model="m", input="hi again")
        kinds = [(await receiving).type]
        while kinds[-1] != "response.completed":
            kinds.append((await anext(events)).type)

    assert kinds[0] == "response.created"
    assert [record.connection for record in sim.requests] == [0, 1]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, None, openai.BadRequestError),
        (401, "invalid_api_key", openai.AuthenticationError),
        (403, "insufficient_permissions", openai.PermissionDeniedError),
        (404, None, openai.NotFoundError),
        (409, None, openai.ConflictError),
        (422, None, openai.UnprocessableEntityError),
        (429, "rate_limit_exceeded", openai.RateLimitError),
        (500, "server_error", openai.InternalServerError),
        (503, "server_is_overloaded", openai.InternalServerError),
    ],
)
async def test_errors_map_to_the_sdks_classes(
    status: int, code: str | None, error: type[openai.APIStatusError]
) -> None:
    body = ev.http_error(status, code, "simulated", param="input")
    async with (
        Simulator(Script(posts=[Reply(status=status, body=body)])) as sim,
        client_of(sim, max_retries=0) as client,
    ):
        with pytest.raises(error) as raised:
            await client.responses.create(model="m", input="hi")

    assert raised.value.status_code == status
    assert (raised.value.code, raised.value.param) == (code, "input")
    assert raised.value.request_id == sim.requests[0].request_id


async def test_the_simulators_own_refusals_map_too() -> None:
    async with Simulator(tokens={"sk-other"}) as sim, client_of(sim, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.responses.create(model="m", input="hi")
        with pytest.raises(InvalidStatus) as upgrade:
            await client.responses.connect().enter()
    async with Simulator() as sim, client_of(sim) as client:
        with pytest.raises(openai.BadRequestError) as raised:
            await client.responses.create(model="m", input="hi", temperature=3)

    assert upgrade.value.response.status_code == 401
    assert (raised.value.code, raised.value.param) == ("decimal_above_max_value", "temperature")


async def test_a_flat_error_event_inside_a_stream_is_typed() -> None:
    script = Script(posts=[Reply(events=[ev.created(), ev.sse_error("server_error", "it broke")])])
    async with Simulator(script) as sim, client_of(sim, max_retries=0) as client:
        stream = await client.responses.create(model="m", input="hi", stream=True)
        events = [event async for event in stream]

    assert events[-1].type == "error"
    assert (events[-1].code, events[-1].message) == ("server_error", "it broke")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_retries_follow_retry_after_and_then_succeed(status: int) -> None:
    refused = Reply(status=status, headers={"retry-after-ms": "1"}, times=2)
    async with Simulator(Script(posts=[refused, Reply.model()])) as sim, client_of(sim) as client:
        response = await client.responses.create(model="m", input="hi")

    assert response.status == "completed"
    assert [record.status for record in sim.requests] == [status, status, 200]
    assert [record.headers.get("x-stainless-retry-count") for record in sim.requests] == ["0", "1", "2"]


async def test_x_should_retry_false_stops_the_retries() -> None:
    refused = Reply(status=503, headers={"x-should-retry": "false"})
    async with Simulator(Script(posts=[refused])) as sim, client_of(sim) as client:
        with pytest.raises(openai.InternalServerError):
            await client.responses.create(model="m", input="hi")

    assert len(sim.requests) == 1


async def test_a_dropped_post_is_retried_by_the_sdk() -> None:
    script = Script(posts=[Reply(events=[Drop()]), Reply.model()])
    async with Simulator(script) as sim, client_of(sim) as client:
        response = await client.responses.create(model="m", input="hi")

    assert response.status == "completed"
    assert [record.outcome for record in sim.requests] == ["cut", "completed"]


async def test_models_compact_and_stored_responses() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        names = [model.id async for model in client.models.list()]
        made = await client.responses.create(model="m", input="hi")
        again = await client.responses.retrieve(made.id)
        items = [item async for item in client.responses.input_items.list(made.id)]
        compacted = await client.responses.compact(model="m", input=[{"role": "user", "content": "hi"}])
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)

    assert "sim-large" in names
    assert again.output_text == made.output_text
    assert len(items) == 1
    assert compacted.output[-1].type == "compaction"


# The SDK opens its synchronous socket in a way that websockets 17 deprecates.
@pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")
def test_the_synchronous_client_works_too() -> None:
    async def run() -> str:
        async with Simulator() as sim:
            return await asyncio.to_thread(_ask_in_thread, sim.base_url)

    assert "from a thread" in asyncio.run(run())


def _ask_in_thread(base_url: str) -> str:
    with openai.OpenAI(base_url=base_url, api_key=KEY) as client, client.responses.connect() as connection:
        connection.response.create(model="m", input="from a thread")
        for event in connection:
            if event.type == "response.completed":
                return event.response.output_text
    raise AssertionError("no response.completed")
