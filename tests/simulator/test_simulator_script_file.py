"""Scripts in YAML: what they can say, and how a mistake is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from warmline_simulator import Simulator, read
from warmline_simulator.script_file import ScriptFileError, load

from .wire_client import ask, create, id_of, open_http, open_ws, receive, send, text_of, types

SCRIPT = """
settings: {seed: 3, pace_s: 0.0}
models: [only-one]
connections:
  - status: 503
    headers: {retry-after: "2"}
    body: {error: {message: busy, code: slow_down}}
  - headers: {x-codex-turn-state: ts-1}
    replies:
      - events: [!text_response "42"]
        response_id: resp-y
      - events:
          - !created
          - {type: response.made_up, answer: 42}
          - "{broken"
          - !item_done
            item: !function_call {name: look, arguments: '{"at": 1}', call_id: call-1}
          - !completed {usage: !usage [7, 3]}
      - match: {warm_up: true}
        events: [!warm_up_response ]
      - events: [!created , !close {code: 1011, reason: tired}]
posts:
  - status: 429
    times: 2
  - events: [!response_of [!reasoning {summary: hm}, !message done]]
    then: !nothing
"""


@pytest.fixture
async def scripted(tmp_path: Path) -> AsyncIterator[Simulator]:
    path = tmp_path / "script.yaml"
    path.write_text(SCRIPT)
    loaded = load(path)
    async with Simulator(loaded.script, **loaded.settings, expect_violations=True) as sim:
        yield sim


async def test_a_script_file_says_what_a_script_in_python_says(scripted: Simulator) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await open_ws(scripted).__aenter__()
    await _use_the_second_connection(scripted)
    async with open_http(scripted) as http:
        body = {"model": "m", "input": "x", "stream": True}
        statuses = [(await http.post("/responses", json=body)).status_code for _ in range(3)]
        models = (await http.get("/models")).json()["data"]

    assert refused.value.response.headers["retry-after"] == "2"
    assert b"slow_down" in refused.value.response.body
    assert statuses == [429, 429, 200]
    assert [model["id"] for model in models] == ["only-one"]


async def _use_the_second_connection(sim: Simulator) -> None:
    async with open_ws(sim) as ws:
        assert ws.response is not None
        assert ws.response.headers["x-codex-turn-state"] == "ts-1"
        first = await ask(ws)
        await send(ws, create())
        opening = [await receive(ws), await receive(ws)]
        broken = await ws.recv()
        ending = [await receive(ws), await receive(ws)]
        warm = await ask(ws, [], generate=False)
        await send(ws, create())
        await receive(ws)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.recv()

    assert (text_of(first), id_of(first)) == ("42", "resp-y")
    assert (opening[1]["answer"], broken) == (42, "{broken")
    assert ending[0]["item"]["call_id"] == "call-1"
    assert ending[1]["response"]["usage"]["total_tokens"] == 10
    assert types(warm) == ["response.created", "response.completed"]
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "tired")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("conections: []", "unknown key 'conections' — did you mean 'connections'?"),
        ("posts: [{stauts: 400}]", "posts[0]: unknown key 'stauts' — did you mean 'status'?"),
        ("posts: [{status: high}]", "posts[0].status: Expected `int`, got `str`"),
        ("posts: {}", "posts: found dict — expected a list"),
        ("posts: [{events: [!text_respnse hi]}]", "unknown tag !text_respnse — did you mean 'text_response'?"),
        (
            "posts: [{events: [!text_delta {dleta: hi}]}]",
            "!text_delta: text_delta() got an unexpected keyword argument",
        ),
        ("posts: [{events: [3]}]", "posts[0].events: found 3 — expected an event, a text or a step"),
        ("posts: [{match: {warmup: true}}]", "posts[0].match: unknown key 'warmup' — did you mean 'warm_up'?"),
        ("connections: [{replies: [{times: soon}]}]", "connections[0].replies[0].times"),
        ("settings: {paces: 1}", "settings: unknown key 'paces' — did you mean 'pace_s'?"),
        ("settings: {lifetime_s: long}", "settings.lifetime_s: Expected `float`, got `str`"),
        ("rest: sometimes", "rest: Invalid enum value 'sometimes'"),
        ("[1, 2]", "found list — expected a mapping"),
        ("a: [", "while parsing"),
        ("posts: [{events: [!recorded none.jsonl]}]", "none.jsonl: No such file or directory"),
    ],
)
def test_a_mistake_names_the_place_and_the_nearest_right_word(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "script.yaml"
    path.write_text(text)

    with pytest.raises(ScriptFileError) as fault:
        load(path)

    assert str(path) in str(fault.value)
    assert told in str(fault.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ScriptFileError, match=r"nothing\.yaml: No such file"):
        load(tmp_path / "nothing.yaml")


async def test_matches_look_at_warm_up_chain_model_text_header_and_lane(tmp_path: Path) -> None:
    path = tmp_path / "script.yaml"
    wanted: dict[str, dict[str, Any]] = {
        "warm_up: true": {"generate": False},
        "continues: true": {"previous_response_id": "resp-x"},
        "model: special": {"model": "special"},
        "contains: needle": {"instructions": "a needle here"},
        "stream_id: side": {"stream_id": "side"},
    }
    replies = "".join(
        f"  - {{match: {{{match}}}, response_id: r{n}, events: [!text_response x]}}\n" for n, match in enumerate(wanted)
    )
    path.write_text(f"creates:\n{replies}posts: [{{match: {{header: {{x-a: b}}}}, status: 418}}]\n")
    async with Simulator(load(path).script) as sim, open_ws(sim) as ws, open_http(sim) as http:
        ids = [id_of(await ask(ws, **fields)) for fields in reversed(wanted.values())]
        posted = await http.post("/responses", json={"model": "m", "input": "x"}, headers={"x-a": "b"})

    assert ids == ["r4", "r3", "r2", "r1", "r0"]
    assert posted.status_code == 418
    assert not read.is_warm_up(sim.requests[0])
