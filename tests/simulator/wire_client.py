"""What the simulator's own tests talk to it with: plain websockets and httpx, nothing of the project."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from warmline_simulator import Simulator

Json = dict[str, Any]
TERMINALS = ("response.completed", "response.failed", "response.incomplete", "error")
TIMEOUT_S = 5.0


def ws_url(sim: Simulator) -> str:
    return sim.base_url.replace("http", "ws", 1) + "/responses"


@asynccontextmanager
async def open_ws(sim: Simulator, **options: Any) -> AsyncIterator[ClientConnection]:
    async with connect(ws_url(sim), **options) as ws:
        yield ws


@asynccontextmanager
async def open_http(sim: Simulator, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=sim.base_url, trust_env=False, **options) as http:
        yield http


def create(given: Any = "hello", /, **fields: Any) -> Json:
    return {"type": "response.create", "model": "sim-large", "input": given, **fields}


async def send(ws: ClientConnection, frame: Mapping[str, Any]) -> None:
    await ws.send(json.dumps(frame))


async def receive(ws: ClientConnection) -> Json:
    async with asyncio.timeout(TIMEOUT_S):
        return dict(json.loads(await ws.recv()))


async def receive_until_end(ws: ClientConnection) -> list[Json]:
    """Events up to and with the next terminal."""
    events = [await receive(ws)]
    while events[-1]["type"] not in TERMINALS:
        events.append(await receive(ws))
    return events


async def ask(ws: ClientConnection, given: Any = "hello", /, **fields: Any) -> list[Json]:
    await send(ws, create(given, **fields))
    return await receive_until_end(ws)


async def ask_error(ws: ClientConnection, given: Any = "hello", /, **fields: Any) -> Json:
    """Ask for what must be refused; returns the error frame."""
    events = await ask(ws, given, **fields)
    assert [event["type"] for event in events] == ["error"]
    return events[0]


def types(events: list[Json]) -> list[str]:
    return [event["type"] for event in events]


def text_of(events: list[Json]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def id_of(events: list[Json]) -> str:
    return str(events[-1]["response"]["id"])


def calls_of(events: list[Json]) -> list[Json]:
    done = (event["item"] for event in events if event["type"] == "response.output_item.done")
    return [item for item in done if item["type"].endswith("_call")]


def sse_events(body: str) -> list[Json]:
    """The data objects of an SSE body; every event must name its type in `event:` too."""
    events = []
    for block in body.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in lines:
            event = json.loads(lines["data"])
            assert lines["event"] == event["type"]
            events.append(event)
    return events
