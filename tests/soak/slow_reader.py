"""One reader among many that does not read: what it costs the others, and what it holds. `make slow-reader`.

The same load is measured in turns: alone, beside a reader that gets stuck, and beside one that is stuck. The ratio of
neighbours is theirs, whatever else the machine does meanwhile; two blocks that are alone say how much it does. A reader
gets stuck with an answer that comes as fast as it can, until no window takes more of it: that is a fast stream, which
takes its share of the loop whether it is read or not, so it is shown and not judged. Then many are stuck at once, and
the memory that they hold is divided by their number. Exit status: 0 when all limits hold, else 1.
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import grpc
import grpc.aio

import warmline
from soak import vitals
from soak.calls import OWN_CONNECTION, read
from soak.cancels import is_idle_but_for_sessions, quantile, request
from soak.site import SETTLE_S, Site, open_site, open_upstream, run_proof
from soak.verdict import MIB
from warmline.v1 import turn_service_pb2 as turns_pb
from warmline.v1 import turn_service_pb2_grpc as turns_grpc

# Longer than a block: who is stuck in it is so to its end.
SLOW_READER_S = 8.0
RATIO_LIMIT = 1.1
LIMIT_BYTES = 8 * MIB
# A reader who is stuck asks for far more than any window takes in, as fast as it comes.
STUCK_METADATA = b'{"metadata":{"sim_words":"60000","sim_pace_s":"0"}}'
WORDS, PACE_S = 20, 0.05
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
    """Blocks in turns, round by round. `endings`: how the stuck readers' calls ended."""

    alone: list[Gaps] = field(default_factory=list)
    getting_stuck: list[Gaps] = field(default_factory=list)
    stuck: list[Gaps] = field(default_factory=list)
    endings: list[str] = field(default_factory=list)

    @property
    def noise(self) -> float:
        """How far apart two blocks alone are, one after the other: the median of their ratios, above 1."""
        ratios = [b.p99_s / a.p99_s for a, b in pairwise(self.alone)]
        return statistics.median([max(ratio, 1 / ratio) for ratio in ratios]) if ratios else 1.0

    def ratio(self, beside: list[Gaps]) -> float:
        """The p99 of such blocks over that of the block alone of the same round: the median of all rounds."""
        return statistics.median([b.p99_s / a.p99_s for a, b in zip(self.alone, beside, strict=True)])

    @property
    def wrong(self) -> list[str]:
        return [line for gaps in (*self.alone, *self.getting_stuck, *self.stuck) for line in gaps.wrong]


async def compare(site: Site, rounds: int, turns: int, others: int) -> Compared:
    """Runs the blocks. A stuck reader shares its connection with half of the others; it is read when it was ended."""
    compared, numbers = Compared(), itertools.count()
    async with (
        warmline.Client(site.server.address, channel_options=OWN_CONNECTION) as one,
        warmline.Client(site.server.address, channel_options=OWN_CONNECTION) as two,
    ):
        stubs = [one.turns, two.turns]

        async def another() -> Gaps:
            return await block(stubs, next(numbers), turns, others)

        async def end(stuck: Stuck) -> None:
            await site.until(is_idle_but_for_sessions)
            compared.endings.append((await read(stuck.call)).error or "completed")

        await block(stubs, next(numbers), 1, others)  # sessions and sockets are there from here on
        for number in range(rounds):
            compared.alone.append(await another())
            stuck = await get_stuck(stubs[0], f"getting-{number}", http=bool(number % 2))
            compared.getting_stuck.append(await another())
            await end(stuck)
            stuck = await get_stuck(stubs[0], f"stuck-{number}", http=bool(number % 2))
            await until_stuck(site)
            compared.stuck.append(await another())
            await end(stuck)
    return compared


async def until_stuck(site: Site) -> None:
    """Waits until the upstream gets nothing more written."""
    sent = [0, 1, 2]
    while len(set(sent[-3:])) > 1:
        sent.append((await site.upstream.ask("counts"))["bytes_out"])
        await asyncio.sleep(0.2)


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
    peak, ends_s = before, time.monotonic() + SETTLE_S
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


async def run(rounds: int, turns: int, others: int, readers: int, slow_reader_s: float) -> Found:
    """Both parts, each on a server of its own."""
    settings = {"LIMITS__SLOW_READER_S": str(slow_reader_s)}
    async with open_upstream("--pace", "0.02", "--words", "40") as upstream:
        async with open_site(upstream, **settings) as site:
            compared = await compare(site, rounds, turns, others)
            errors = list(site.errors)
        async with open_site(upstream, **settings) as site:
            # What any load brings is there before the first look.
            async with warmline.Client(site.server.address) as client:
                await block([client.turns], 0, 1, 20)
            held = await measure_memory(site, readers)
            return Found(compared, held, errors + site.errors)


def show(compared: Compared) -> None:
    """The rounds, one per line."""
    print("the others' p99 between two messages:")
    print(f"{'round':<8}{'alone':>12}{'one gets stuck':>18}{'one is stuck':>16}")
    for number, blocks in enumerate(zip(compared.alone, compared.getting_stuck, compared.stuck, strict=True)):
        alone, getting, stuck = (f"{gaps.p99_s * 1000:.1f} ms" for gaps in blocks)
        print(f"{number:<8}{alone:>12}{getting:>18}{stuck:>16}")
    print(
        f"median over alone: {compared.ratio(compared.getting_stuck):.3f} while one gets stuck, "
        f"{compared.ratio(compared.stuck):.3f} while one is stuck; two blocks alone differ by {compared.noise:.3f}"
    )


def judge(found: Found, *, limited: bool) -> bool:
    """Prints what was found, and says whether it holds."""
    compared, held = found.compared, found.held
    show(compared)
    # Where a block takes long, its stuck reader was cut off before it is read: a reset, without a reason.
    right_ends = {"SLOW_READER"} if limited else {"SLOW_READER", "CANCELLED"}
    wrong_ends = [end for end in compared.endings if end not in right_ends]
    ended = len(compared.endings) - len(wrong_ends)
    lines = [
        (not compared.wrong, f"{len(compared.wrong)} turns of the others that went wrong {compared.wrong[:2] or ''}"),
        (not wrong_ends, f"{ended} of {len(compared.endings)} ended as slow readers {wrong_ends or ''}"),
        (not held.rpcs_left, f"{held.rpcs_left} tasks left of {held.readers} readers that took no status"),
        (not found.errors, f"{len(found.errors)} errors in the log {found.errors[:1] or ''}"),
    ]
    if limited:
        ratio = compared.ratio(compared.stuck)
        lines += [
            (
                ratio <= RATIO_LIMIT,
                f"the others' p99 beside a stuck reader: {ratio:.3f} of that alone; allowed {RATIO_LIMIT}",
            ),
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
    parser.add_argument("--rounds", type=int, default=8, help="of three blocks each (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each reader in a block (default: %(default)s)")
    parser.add_argument("--others", type=int, default=OTHERS, help="readers that read (default: %(default)s)")
    parser.add_argument("--readers", type=int, default=20, help="stuck at once, for the memory (default: %(default)s)")
    parser.add_argument("--slow-reader", type=float, default=SLOW_READER_S, metavar="S", help="limits.slow_reader_s")
    parser.add_argument("--no-limit", action="store_true", help="judge no time and no memory")
    args = parser.parse_args()
    found = run_proof(run(args.rounds, args.turns, args.others, args.readers, args.slow_reader))
    return 0 if judge(found, limited=not args.no_limit) else 1


if __name__ == "__main__":
    sys.exit(main())
