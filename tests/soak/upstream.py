"""The simulator as a process of its own: `python -m soak.upstream`. It prints its base URL, and answers each line of
its standard input with one line of JSON:

* `counts`: what is open and running now, and what went wrong in it;
* `ended`: the requests that ended since this was last asked, as `[key, transport, outcome, at_s]`, the time on the
  machine's monotonic clock, which is the same in every process;
* `refuse STATUS`: handshakes are answered with it from now on; `refuse 0`: no more.

It ends with its input.
"""

import argparse
import asyncio
import dataclasses
import json
import sys
import time

from soak.faults import key_of, script
from warmline_simulator import HandshakeRecord, RequestRecord, Simulator
from warmline_simulator.eventloop import loop_factory

Ended = tuple[str, str, str, float]


class Witness:
    """Keeps what ended until it is asked for."""

    def __init__(self, *, keeps: bool) -> None:
        self._keeps = keeps
        self._ended: list[Ended] = []

    def __call__(self, what: str, record: HandshakeRecord | RequestRecord) -> None:
        if self._keeps and what == "request_ended" and isinstance(record, RequestRecord):
            self._ended.append((key_of(record), record.transport, record.outcome, time.monotonic()))

    def take(self) -> list[Ended]:
        """What has ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended


def answer(sim: Simulator, witness: Witness, line: str) -> object:
    """What a line is answered with."""
    word, _, rest = line.partition(" ")
    if word == "counts":
        return {**dataclasses.asdict(sim.counters), "problems": sim.problems()}
    if word == "ended":
        return witness.take()
    if word == "refuse":
        sim.refuse_upgrades = int(rest) or None
        return sim.refuse_upgrades
    raise ValueError(f"{line!r}: there are counts, ended and refuse")


async def serve(pace_s: float, words: int, *, keeps_ended: bool) -> None:
    """Serves until the end of the standard input."""
    witness, reader = Witness(keeps=keeps_ended), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Simulator(script(), pace_s=pace_s, words=words, keep_records=0, stored_responses=1000) as sim:
        sim.state.observers.append(witness)
        print(sim.base_url, flush=True)
        while line := await reader.readline():
            print(json.dumps(answer(sim, witness, line.decode().strip())), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pace", type=float, default=0.02)
    parser.add_argument("--words", type=int, default=12)
    parser.add_argument("--keep-ended", action="store_true")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(args.pace, args.words, keeps_ended=args.keep_ended))


if __name__ == "__main__":
    main()
