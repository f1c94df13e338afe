"""What the tests of credentials share: a token endpoint on loopback, and a program that can be watched."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl

import msgspec

from warmline_server.core.errors import UpstreamFailure, UpstreamWords
from warmline_server.credentials.renewal import transient

CANARY = "canary-7f3a9c"


def reply(**fields: object) -> bytes:
    """A token endpoint's 200."""
    return http(200, msgspec.json.encode(fields))


def http(status: int, body: bytes = b"{}", *headers: str) -> bytes:
    """An HTTP response; status 0: the connection is closed without one."""
    if not status:
        return b""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class TokenEndpoint:
    """Answers each POST with the next of `replies`, the last one for ever, once `gate` is set; records the forms."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.forms: list[dict[str, str]] = []
        self.heads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/token"
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(int(line[15:]) for line in head.splitlines() if line.lower().startswith("content-length:"))
        self.forms.append(dict(parse_qsl((await reader.readexactly(length)).decode())))
        self.heads.append(head)
        self.asked.set()
        await self.gate.wait()
        writer.write(self.replies.pop(0) if len(self.replies) > 1 else self.replies[0])
        await writer.drain()
        writer.close()


class FakeReply:
    def __init__(self, body: bytes) -> None:
        self.body = body


class FakeTokenHttp:
    """A TokenHttp without a socket, for what only time decides.

    Each answer is a body, a status to refuse with, or None for silence.
    """

    def __init__(self, *answers: bytes | int | None) -> None:
        self.answers = list(answers)
        self.requests = 0
        self.cancelled = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def post_json(
        self, url: str, headers: Sequence[tuple[str, str]], body: bytes, *, connect_timeout_s: float, timeout_s: float
    ) -> FakeReply:
        self.requests += 1
        answer = self.answers.pop(0)
        try:
            await self.gate.wait()
            if answer is None:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(answer, bytes):
            return FakeReply(answer)
        failure: UpstreamFailure = transient("refused")
        failure.words = UpstreamWords(status=answer, message=f"told {CANARY}")
        raise failure


class Watched:
    """A program that tells over a socket when it runs, and by that socket's end when it does not any more."""

    async def __aenter__(self) -> Self:
        self.runs = 0
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    def command(self, then: str) -> tuple[str, ...]:
        """A program that reports, runs the Python statement, and ends."""
        port = self._server.sockets[0].getsockname()[1]
        report = f"import socket, sys; line = socket.create_connection(('127.0.0.1', {port})); line.sendall(b'x')"
        return (sys.executable, "-S", "-c", f"{report}; {then}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        self.runs += 1
        self.started.set()
        await reader.read()
        self.ended.set()
        writer.close()


def write_tokens(path: Path, **fields: object) -> Path:
    """A token file, replaced as a whole as those who share one do."""
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(fields))
    new.replace(path)
    return path
