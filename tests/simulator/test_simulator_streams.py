"""The unscripted simulator: what the small model sends over both transports."""

from __future__ import annotations

import zstandard

from warmline_simulator import ManualClock, Simulator, ev

from .wire_client import ask, calls_of, id_of, open_http, open_ws, receive, send, sse_events, text_of, types

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
}
TEXT_ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.completed",
]


async def test_text_over_websocket_comes_in_order_and_numbered() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        events = await ask(ws, "tell me about herons")

    assert list(dict.fromkeys(types(events))) == TEXT_ORDER
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert all("stream_id" not in event for event in events)
    assert "tell me about herons" in text_of(events)


async def test_text_over_sse_is_the_same_text() -> None:
    async with Simulator(seed=7) as sim, open_ws(sim) as ws, open_http(sim) as http:
        frames = await ask(ws, "tell me about herons")
        response = await http.post(
            "/responses", json={"model": "sim-large", "input": "tell me about herons", "stream": True}
        )

    assert response.headers["content-type"] == "text/event-stream"
    events = sse_events(response.text)
    assert list(dict.fromkeys(types(events))) == TEXT_ORDER
    assert text_of(events) == text_of(frames)


async def test_post_without_stream_answers_one_object() -> None:
    async with Simulator() as sim, open_http(sim) as http:
        response = await http.post("/responses", json={"model": "sim-large", "input": "hello"})

    assert response.headers["content-type"] == "application/json"
    assert response.json()["object"] == "response"
    assert response.json()["status"] == "completed"
    assert "hello" in response.json()["output"][0]["content"][0]["text"]


async def test_same_seed_same_words_other_seed_other_words() -> None:
    texts = []
    for seed in (1, 1, 2):
        async with Simulator(seed=seed) as sim, open_ws(sim) as ws:
            texts.append(text_of(await ask(ws)))

    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


async def test_weather_calls_the_tool_with_valid_arguments_and_answers_its_output() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        first = await ask(ws, "what is the weather in Oslo", tools=[WEATHER])
        call = calls_of(first)[0]
        output = ev.function_call_output(call["call_id"], "rain and 4 degrees")
        second = await ask(ws, [output], tools=[WEATHER], previous_response_id=id_of(first))

    assert call["name"] == "get_weather"
    assert call["arguments"] == '{"city":"Oslo","unit":"celsius"}'
    assert "The tool get_weather answered: rain and 4 degrees" in text_of(second)
    assert sim.requests[1].previous_response_id == id_of(first)


async def test_a_chained_request_counts_what_it_continues_as_cached() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        first = await ask(ws)
        second = await ask(ws, "and then", previous_response_id=id_of(first))

    before = first[-1]["response"]["usage"]["total_tokens"]
    used = second[-1]["response"]["usage"]
    assert used["input_tokens_details"]["cached_tokens"] == before
    assert used["input_tokens"] > before


async def test_pace_goes_by_the_clock() -> None:
    clock = ManualClock()
    async with Simulator(clock=clock, pace_s=60.0, words=2) as sim, open_ws(sim) as ws:
        await send(ws, {"type": "response.create", "model": "m", "input": "hi"})
        seen = [(await receive(ws))["type"] for _ in range(4)]
        clock.advance(60.0)
        seen.append((await receive(ws))["type"])

    assert seen == TEXT_ORDER[:5]


async def test_zstd_bodies_are_read() -> None:
    body = zstandard.ZstdCompressor().compress(b'{"model":"sim-large","input":"squeezed","stream":true}')
    async with Simulator() as sim, open_http(sim) as http:
        response = await http.post("/responses", content=body, headers={"content-encoding": "zstd"})

    assert "squeezed" in text_of(sse_events(response.text))
    assert sim.requests[0].body["input"] == "squeezed"


async def test_compression_is_agreed_when_offered_and_declined_when_told() -> None:
    async with Simulator() as sim, open_ws(sim) as ws:
        assert "compressed" in text_of(await ask(ws, "compressed"))
        assert sim.handshakes[0].compressed
    async with Simulator(compression=False) as sim, open_ws(sim) as ws:
        assert "plain" in text_of(await ask(ws, "plain"))
        assert not sim.handshakes[0].compressed


async def test_models_are_listed_with_an_etag_that_saves_the_second_answer() -> None:
    async with Simulator() as sim, open_http(sim) as http:
        first = await http.get("/models?client_version=1")
        second = await http.get("/models", headers={"if-none-match": first.headers["etag"]})

    assert "sim-large" in [model["id"] for model in first.json()["data"]]
    assert (second.status_code, second.content) == (304, b"")
    assert [record.path for record in sim.unary_requests] == ["/v1/models?client_version=1", "/v1/models"]


async def test_every_answer_has_a_request_id_of_its_own() -> None:
    async with Simulator() as sim, open_http(sim) as http, open_ws(sim):
        for _ in range(2):
            await http.post("/responses", json={"model": "m", "input": "hi"})
        ids = [record.request_id for record in sim.requests]
        ids.append(sim.handshakes[0].response_headers["x-request-id"])

    assert len({each for each in ids if each is not None and each.startswith("req_")}) == 3
