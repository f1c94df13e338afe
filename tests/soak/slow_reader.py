"""One reader among many that does not read: what it costs the others, and what it holds. `make slow-reader`.

The same load is measured in turns with and without stuck readers beside it: the difference of neighbours is theirs,
whatever else the machine does meanwhile. Then many are stuck at once, and the memory that they hold is divided by
their number. Exit status: 0 when all limits hold, else 1.
"""

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

import warmline
from soak import vitals
from soak.calls import OWN_CONNECTION, read
from soak.cancels import is_idle_but_for_sessions, quantile, request
from soak.site import Site, open_site, open_upstream, run_proof
from soak.verdict import MIB
from warmline.v1 import turn_service_pb2 as turns_pb
from warmline.v1 import turn_service_pb2_grpc as turns_grpc

SLOW_READER_S = 2.0
LIMIT_BYTES = 8 * MIB
# A reader who is stuck asks for far more than any window takes in, as fast as it comes.
STUCK_METADATA = b'{"metadata":{"sim_words":"60000","sim_pace_s":"0"}}'
WORDS, PACE_S = 40, 0.02
OTHERS = 99


@dataclass(slots=True)
class Gaps:
    """One block of the load: the time between two messages at its readers, and what went wrong."""

    between_s: list[float] = field(default_factory=list)
    events: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        return quantile(self.between_s, 0.99)


@dataclass(slots=True)
class Stuck:
    """A reader that has read one message. It is on a connection that others use too, or on its own."""

    call: Any
    key: str


def stuck_request(key: str, *, http: bool) -> turns_pb.StreamTurnRequest:
    """A call whose answer nobody can take without reading."""
    return request(key, key, http=http, request_json=STUCK_METADATA, events=turns_pb.EVENT_MODE_BOTH)


async def get_stuck(stub: Any, key: str, *, http: bool = False) -> Stuck:
    """Sends such a call, reads its first message, and no more."""
    call = stub.StreamTurn(stuck_request(key, http=http))
    await call.read()
    return Stuck(call, key)


async def read_turn(stub: Any, session_id: str, key: str, gaps: Gaps) -> None:
    """One turn of another reader, timed."""
    metadata = b'{"metadata":{"sim_words":"%d","sim_pace_s":"%g"}}' % (WORDS, PACE_S)
    call = stub.StreamTurn(request(key, session_id, http=False, request_json=metadata))
    former_s, completed = None, False
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            now_s = time.monotonic()
            if former_s is not None:
                gaps.between_s.append(now_s - former_s)
            former_s = now_s
            gaps.events += len(message.events)
            completed = completed or any(event.HasField("completed") for event in message.events)
    except grpc.aio.AioRpcError as error:
        gaps.wrong.append(f"{key}: {error.code().name} {error.details()}")
        return
    if not completed:
        gaps.wrong.append(f"{key}: the stream ended without its terminal event")


async def block(stubs: list[Any], number: int, turns: int, others: int) -> Gaps:
    """Every other reader has so many turns, all of them at once."""
    gaps = Gaps()

    async def reader(who: int) -> None:
        await asyncio.sleep(who / others * WORDS * PACE_S)  # not all in step
        for turn in range(turns):
            await read_turn(stubs[who % len(stubs)], f"other-{who}", f"b{number}-{who}-{turn}", gaps)

    await asyncio.gather(*(reader(who) for who in range(others)))
    return gaps


@dataclass(slots=True)
class Compared:
    """Blocks in turns: without and with a stuck reader on one of the same connections."""

    without: list[Gaps]
    beside: list[Gaps]
    endings: list[str]

    @property
    def ratios(self) -> list[float]:
        """The p99 beside a stuck reader over that of the block before, pair by pair."""
        return [b.p99_s / a.p99_s for a, b in zip(self.without, self.beside, strict=True)]

    @property
    def wrong(self) -> list[str]:
        return [line for gaps in (*self.without, *self.beside) for line in gaps.wrong]


async def compare(site: Site, pairs: int, turns: int, others: int) -> Compared:
    """Runs the blocks; the stuck reader of each second one shares a connection with others, and is read to its end."""
    compared = Compared([], [], [])
    async with (
        warmline.Client(site.server.address, channel_options=OWN_CONNECTION) as one,
        warmline.Client(site.server.address, channel_options=OWN_CONNECTION) as two,
    ):
        stubs = [one.turns, two.turns]
        await block(stubs, 0, 1, others)  # sessions and sockets are there from here on
        for pair in range(pairs):
            compared.without.append(await block(stubs, 2 * pair + 1, turns, others))
            stuck = await get_stuck(stubs[0], f"stuck-{pair}", http=bool(pair % 2))
            compared.beside.append(await block(stubs, 2 * pair + 2, turns, others))
            await site.until(is_idle_but_for_sessions)  # it takes nothing until it was ended
            compared.endings.append((await read(stuck.call)).error or "completed")
    return compared


@dataclass(frozen=True, slots=True)
class Held:
    """What stuck readers hold, each: at most, and when they were ended and cut off."""

    readers: int
    peak_bytes: float
    after_bytes: float
    rpcs_left: int


async def measure_memory(site: Site, readers: int) -> Held:
    """Lets so many get stuck at once, and looks at the server until it has ended them all."""
    channels = [grpc.aio.insecure_channel(site.server.address, OWN_CONNECTION) for _ in range(readers)]
    stubs = [turns_grpc.TurnServiceStub(channel) for channel in channels]
    before = vitals.memory(site.pid).rss_bytes
    tasks_before = (await site.metrics()).value("warmline_event_loop_tasks")
    stuck = await asyncio.gather(*(get_stuck(stub, f"held-{i}", http=bool(i % 2)) for i, stub in enumerate(stubs)))
    peak, ends_s = before, time.monotonic() + 60.0
    while time.monotonic() < ends_s:
        peak = max(peak, vitals.memory(site.pid).rss_bytes)
        found = await site.metrics()
        if not found.value("warmline_calls_active") and found.value("warmline_event_loop_tasks") <= tasks_before:
            break
        await asyncio.sleep(0.1)
    after = vitals.memory(site.pid).rss_bytes
    left = max(0, round(found.value("warmline_event_loop_tasks") - tasks_before))
    for each in stuck:
        each.call.cancel()
    for channel in channels:
        await channel.close()
    return Held(readers, (peak - before) / readers, (after - before) / readers, left)


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that a run found."""

    compared: Compared
    held: Held
    errors: list[str]


async def run(pairs: int, turns: int, others: int, readers: int) -> Found:
    """Both parts, each on a server of its own."""
    settings = {"LIMITS__SLOW_READER_S": str(SLOW_READER_S)}
    async with open_upstream("--pace", "0.02", "--words", "40") as upstream:
        async with open_site(upstream, **settings) as site:
            compared = await compare(site, pairs, turns, others)
            await site.until(is_idle_but_for_sessions)
            errors = list(site.errors)
        async with open_site(upstream, **settings) as site:
            # What any load brings is there before the first look.
            async with warmline.Client(site.server.address) as client:
                await block([client.turns], 0, 1, 20)
            held = await measure_memory(site, readers)
            return Found(compared, held, errors + site.errors)


def judge(found: Found, *, limited: bool) -> bool:
    """Prints what was found, and says whether it holds."""
    compared, held = found.compared, found.held
    print(f"{'pair':<6}{'p99 without':>14}{'p99 beside':>14}{'ratio':>9}   the stuck reader's end")
    for number, ratio in enumerate(compared.ratios):
        a, b = compared.without[number], compared.beside[number]
        print(
            f"{number:<6}{a.p99_s * 1e3:>11.2f} ms{b.p99_s * 1e3:>11.2f} ms{ratio:>9.3f}   {compared.endings[number]}"
        )
    ratio = statistics.median(compared.ratios)
    others = [end for end in compared.endings if end != "SLOW_READER"]
    ended = len(compared.endings) - len(others)
    lines = [
        (not compared.wrong, f"{len(compared.wrong)} turns of the others that went wrong {compared.wrong[:2] or ''}"),
        (
            not others,
            f"{ended} of {len(compared.endings)} ended with SLOW_READER {others or ''}",
        ),
        (not held.rpcs_left, f"{held.rpcs_left} tasks left of {held.readers} readers that took no status"),
        (not found.errors, f"{len(found.errors)} errors in the log {found.errors[:1] or ''}"),
    ]
    if limited:
        lines += [
            (ratio <= 1.1, f"the others' p99 beside a stuck reader over that without: median {ratio:.3f}; allowed 1.1"),
            (
                held.peak_bytes <= LIMIT_BYTES,
                f"memory of a stuck reader, of {held.readers}: {held.peak_bytes / MIB:.1f} MiB at most, "
                f"{held.after_bytes / MIB:.1f} MiB when all are cut off; allowed {LIMIT_BYTES / MIB:.0f}",
            ),
        ]
    for holds, text in lines:
        print(f"{'ok  ' if holds else 'FAIL'}  {text}")
    return all(holds for holds, _ in lines)


def main() -> int:
    """Runs, prints, says whether everything holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6, help="blocks with and without (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=4, help="turns of each reader in a block (default: %(default)s)")
    parser.add_argument("--others", type=int, default=OTHERS, help="readers that read (default: %(default)s)")
    parser.add_argument("--readers", type=int, default=20, help="stuck at once, for the memory (default: %(default)s)")
    parser.add_argument("--no-limit", action="store_true", help="judge no time and no memory")
    args = parser.parse_args()
    found = run_proof(run(args.pairs, args.turns, args.others, args.readers))
    return 0 if judge(found, limited=not args.no_limit) else 1


if __name__ == "__main__":
    sys.exit(main())
