"""A tiny HTTP endpoint on loopback through which a runner acts on the other ends: any method, the path says what."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Answer = Mapping[str, Any]
Handler = Callable[[list[str], Mapping[str, str]], Awaitable[Answer]]
"""Takes the path's segments and the query; LookupError: 404, TimeoutError: 504, each with its text."""


@asynccontextmanager
async def open_control(handler: Handler) -> AsyncIterator[str]:
    """Serves on a free port; gives the URL, without a slash at the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            status, body = await _answer(reader, handler)
            head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def _answer(reader: asyncio.StreamReader, handler: Handler) -> tuple[str, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    _, target, _ = head.split(" ", 2)
    length = [line.partition(":")[2] for line in head.split("\r\n") if line.lower().startswith("content-length:")]
    await reader.readexactly(int(length[0]) if length else 0)
    url = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(url.query).items()}
    try:
        found = await handler([unquote(part) for part in url.path.split("/") if part], query)
    except LookupError as error:
        return "404 Not Found", json.dumps({"error": str(error)}).encode()
    except TimeoutError as error:
        return "504 Gateway Timeout", json.dumps({"error": str(error)}).encode()
    return "200 OK", json.dumps(found).encode()
