"""Begins thousands of turns in one moment, and counts what became of them.

The server is a process of its own with the settings that it has by itself, the limit on concurrent turns apart. The
upstream is a file, so that nothing but the server is tried. Exit status: 0 when every turn completed, else 1.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

import warmline
from warmline.v1 import turn_service_pb2, types_pb2

EVENTS = (
    '{"type":"response.created","response":{"id":"resp-1"}}',
    '{"type":"response.output_item.done","output_index":0,"item":{"type":"message","id":"m","role":"assistant",'
    '"content":[{"type":"output_text","text":"hello"}]}}',
    '{"type":"response.completed","response":{"id":"resp-1","status":"completed","output":[]}}',
)
# Far more than it takes.
PATIENCE_S = 120.0


def write_config(folder: Path, streams: int) -> Path:
    """The server's configuration, with its upstream."""
    fixture, config = folder / "answer.sse", folder / "warmline.toml"
    fixture.write_text("".join(f"data: {event}\n\n" for event in EVENTS))
    config.write_text(
        'listen = "127.0.0.1:0"\ndefault_upstream = "file"\n'
        f'[upstreams.file]\nkind = "fixture"\nfixture_path = {json.dumps(str(fixture))}\n'
        f'[limits]\nmax_concurrent_turns = {streams}\n[telemetry]\nlog_format = "json"\nlog_level = "info"\n'
    )
    return config


@asynccontextmanager
async def server(config: Path) -> AsyncIterator[str]:
    """A server process on a free port. Gives its address."""
    command = [sys.executable, "-m", "warmline_cli.main", "serve", "--config", str(config)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WARMLINE_")}
    process = await asyncio.create_subprocess_exec(*command, env=environ, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    address = await _address(process.stderr)
    reading = asyncio.create_task(_drop(process.stderr), name="read the log, or its pipe would fill")
    try:
        yield address
    finally:
        process.kill()
        await asyncio.gather(process.wait(), reading)


async def _address(log: asyncio.StreamReader) -> str:
    while line := await log.readline():
        if b'"serving"' in line:
            return str(json.loads(line)["address"])
    raise RuntimeError("the server ended without serving")


async def _drop(log: asyncio.StreamReader) -> None:
    while await log.read(65536):
        pass


async def burst(address: str, streams: int, connections: int) -> Counter[str]:
    """Begins so many turns at once, each of a session of its own. Returns: how many ended how."""
    async with AsyncExitStack() as stack:
        clients = []
        for _ in range(connections):
            # A connection of its own: gRPC shares those whose options are the same.
            options = [("grpc.use_local_subchannel_pool", 1)]
            clients.append(await stack.enter_async_context(warmline.Client(address, channel_options=options)))
            assert [session async for session in clients[-1].list_sessions()] == []
        turns = [_turn(clients[number % connections], f"s-{number}") for number in range(streams)]
        async with asyncio.timeout(PATIENCE_S):
            return Counter(await asyncio.gather(*turns))


async def _turn(client: warmline.Client, session_id: str) -> str:
    """How one turn ended: the name of its last event, or of its status and what the server said of it."""
    request = turn_service_pb2.StreamTurnRequest(
        session_id=session_id,
        session_config=types_pb2.SessionConfig(request_defaults=types_pb2.RequestOptions(model="m")),
        input=[warmline.user("hello")],
    )
    last = "nothing"
    try:
        async for message in client.turns.StreamTurn(request):
            last = str(message.events[-1].WhichOneof("event"))
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name}: {error.details()}"
    return last


async def run(streams: int, connections: int) -> Counter[str]:
    """A burst against a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        async with server(write_config(Path(folder), streams)) as address:
            return await burst(address, streams, connections)


def main() -> int:
    """The command. Returns: exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--streams", type=int, default=4000)
    parser.add_argument("--connections", type=int, default=1)
    arguments = parser.parse_args()
    started_s = time.monotonic()
    ended = asyncio.run(run(arguments.streams, arguments.connections))
    print(f"{arguments.streams} streams over {arguments.connections} connections, {time.monotonic() - started_s:.1f} s")
    for ending, count in ended.most_common():
        print(f"{count:6} {ending}")
    return 0 if ended["completed"] == arguments.streams else 1


if __name__ == "__main__":
    sys.exit(main())
