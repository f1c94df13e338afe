"""`warmline` as a process of its own: what it prints, where it listens, how it ends."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Far more than starting or ending takes on a loaded machine.
PATIENCE_S = 50.0

_INHERITED = ("PATH", "PYTHONPATH", "HOME", "LANG", "LC_ALL", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str


async def run(*arguments: str | Path, environ: Mapping[str, str] | None = None) -> Ended:
    """Runs `warmline` to its end, with no setting from outside but `environ`."""
    process = await _start(*arguments, environ=environ or {})
    try:
        async with asyncio.timeout(PATIENCE_S):
            out, err = await process.communicate()
    finally:
        _end(process)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


@dataclass(slots=True)
class ServerProcess:
    """A running `warmline serve`. `lines` are what it logged so far."""

    process: asyncio.subprocess.Process
    address: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)

    async def logged(self, event: str) -> dict[str, Any]:
        """Reads its log up to a line of that event. Fails when the log ends before."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := await self.process.stderr.readline():
                if line.startswith(b"{"):
                    self.lines.append(json.loads(line))
                    if self.lines[-1]["event"] == event:
                        return self.lines[-1]
        raise AssertionError(f"the log ended without {event!r}: {self.lines}")

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Waits for its end. Returns: its exit status."""
        async with asyncio.timeout(PATIENCE_S):
            await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode


@asynccontextmanager
async def serving(base_url: str, **settings: str) -> AsyncIterator[ServerProcess]:
    """A server process on a free port, with the simulator at `base_url` for its only upstream.

    Args: `settings`: further `WARMLINE_*` variables, without the prefix.
    """
    environ = {
        "WARMLINE_DEFAULT_UPSTREAM": "simulator",
        "WARMLINE_UPSTREAMS__SIMULATOR__BASE_URL": base_url,
        **{f"WARMLINE_{name}": value for name, value in settings.items()},
    }
    process = await _start("serve", "--listen", "127.0.0.1:0", environ=environ)
    try:
        server = ServerProcess(process)
        server.address = (await server.logged("serving"))["address"]
        yield server
    finally:
        _end(process)
        await process.communicate()


async def _start(*arguments: str | Path, environ: Mapping[str, str]) -> asyncio.subprocess.Process:
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "warmline_cli.main",
        *map(str, arguments),
        env={**inherited, **environ},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
