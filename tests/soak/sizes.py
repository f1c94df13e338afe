"""What a server takes: the table under "Size" in docs/operations.md. `make sizes`."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import warmline
from soak import vitals
from soak.calls import OWN_CONNECTION, read
from soak.cancels import request
from soak.site import Site, open_site, open_upstream, run_proof
from soak.verdict import MIB
from warmline.v1 import session_service_pb2 as sessions_pb
from warmline.v1 import turn_service_pb2 as turns_pb

SESSIONS = 1000
CONVERSATIONS = 300
CALLS = 200
WORDS_PER_S = 20
CPU_S = 15.0


async def held(site: Site, work: Callable[[], Awaitable[object]], number: int) -> float:
    """Resident bytes that each of `number` things takes, once `work` has made them."""
    before = vitals.memory(site.pid).rss_bytes
    await work()
    return (vitals.memory(site.pid).rss_bytes - before) / number


async def say(client: warmline.Client, session_id: str, text: str, *, append: bool = False) -> None:
    """One turn; it must complete. With `append` the server holds the conversation afterwards."""
    sent = request(session_id, session_id, http=False)
    if append:
        sent.input_mode, sent.expected_history_position = turns_pb.INPUT_MODE_APPEND, 0
    sent.input[0].CopyFrom(warmline.user(text))
    told = await read(client.turns.StreamTurn(sent))
    assert not told.error, told.error


async def warm_sessions(site: Site, client: warmline.Client) -> float:
    """Sessions that were made, each with its socket, and not used."""

    async def make() -> None:
        for number in range(SESSIONS):
            config = request("", "", http=False).session_config
            await client.sessions.CreateSession(
                sessions_pb.CreateSessionRequest(session_id=f"w{number}", config=config)
            )
        await site.until(lambda found, counts: counts["websockets_open"] >= SESSIONS)

    return await held(site, make, SESSIONS)


async def conversations(site: Site, client: warmline.Client, size: int, *, append: bool) -> float:
    """Sessions that have had one turn of so many bytes, beside what they take without it."""
    text = ("x" * 79 + " ") * (size // 80)

    async def talk(prefix: str, words: str) -> None:
        for number in range(CONVERSATIONS):
            await say(client, f"{prefix}{number}", words, append=append)

    await talk("first-", text)  # what a request of this size takes for a moment is there from here on
    small = await held(site, lambda: talk("small-", "hello"), CONVERSATIONS)
    return await held(site, lambda: talk("large-", text), CONVERSATIONS) - small


async def streams(site: Site, client: warmline.Client) -> tuple[float, float]:
    """Calls under way at a model's pace. Returns: bytes each, and CPU seconds per second for all of them."""
    metadata = b'{"metadata":{"sim_words":"1000","sim_pace_s":"%g"}}' % (1 / WORDS_PER_S)
    calls: list[Any] = []
    reading: list[asyncio.Task[Any]] = []

    async def begin() -> None:
        for number in range(CALLS):
            calls.append(
                client.turns.StreamTurn(request(f"s{number}", f"s{number}", http=False, request_json=metadata))
            )
            reading.append(asyncio.create_task(read(calls[-1])))
        await site.until(lambda found, counts: counts["responses_running"] >= CALLS)
        await asyncio.sleep(2.0)

    each = await held(site, begin, CALLS)
    began_s, cpu_s = time.monotonic(), vitals.cpu_s(site.pid)
    await asyncio.sleep(CPU_S)
    share = (vitals.cpu_s(site.pid) - cpu_s) / (time.monotonic() - began_s)
    for call in calls:
        call.cancel()
    await asyncio.wait(reading)
    return each, share


async def measure() -> list[tuple[str, str]]:
    """The table's rows. Each kind of thing gets a server of its own, so that none finds what another left."""
    rows: list[tuple[str, str]] = []
    settings = {"LIMITS__MAX_WARM_SOCKETS": str(2 * SESSIONS)}
    async with open_upstream("--pace", "0", "--words", "6") as upstream:

        async def fresh(work: Callable[[Site, warmline.Client], Awaitable[Any]]) -> Any:
            async with (
                open_site(upstream, **settings) as site,
                warmline.Client(site.server.address, channel_options=OWN_CONNECTION) as client,
            ):
                if not rows:
                    rows.append(("the process, before its first call", _mib(vitals.memory(site.pid).rss_bytes)))
                for number in range(20):
                    await say(client, f"before-{number}", "hello")
                return await work(site, client)

        socket = await fresh(warm_sessions)
        rows.append((f"an idle session with its warm socket (of {SESSIONS})", f"{socket / 1024:.0f} KiB"))
        for size, append in ((300_000, False), (100_000, True), (300_000, True)):
            each = await fresh(partial(conversations, size=size, append=append))
            what = f"a conversation of {size // 1000} kB, {'held for APPEND' if append else 'sent whole'}"
            rows.append((what, f"{each / 1024:.0f} KiB"))
        each, share = await fresh(streams)
        rows.append((f"a call under way (of {CALLS})", f"{each / 1024:.0f} KiB"))
        rows.append((f"{CALLS} streams of {WORDS_PER_S} events per second", f"{share:.2f} of a core"))
    return rows


def _mib(size: float) -> str:
    return f"{size / MIB:.0f} MiB"


def main() -> int:
    """Prints the table."""
    found = run_proof(measure())
    print("| what | costs |\n| --- | --- |")
    for what, costs in found:
        print(f"| {what} | {costs} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
