"""Fuzzing: whatever arrives, the simulator answers, refuses or ends the connection, and nothing is left over.

Short form: test_simulator_fuzz.py. Long form, from the root: `python -m tests.simulator.fuzz --cases 1000000`.
A case is one message: a frame (or a whole request) with a body that is valid, broken, or close to valid.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import zstandard
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from warmline_simulator import Simulator
from warmline_simulator.input_rules import REQUIRED, ROLES, TOOLS
from warmline_simulator.rules import FIELDS, WEBSOCKET_FIELDS

Json = Any
UPGRADE = (
    b"GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SETTLE_S = 10.0
OTHER_PATHS = ["/v1/models", "/responses/compact", "/memories/trace_summarize", "/", "/responses/x/y"]
ODD_HEADERS = ["Content-Encoding", "Authorization", "X-Client-Request-Id", "Upgrade", "Expect", "If-None-Match"]
ODD_VALUES = ["zstd", "gzip, zstd", "websocket", "100-continue", "x" * 600, "é", ""]
LAST = {"model": "m", "input": "the last of all", "metadata": {"sim_words": "0"}}
LAST_FRAME = Frame(Opcode.TEXT, json.dumps({"type": "response.create", **LAST}).encode()).serialize(mask=True)
LAST_BODY = json.dumps({**LAST, "stream": True}).encode()
LAST_REQUEST = b"POST /v1/responses HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(LAST_BODY), LAST_BODY)


class Maker:
    """Makes cases from a seed; far cheaper per case than a strategy, so that a million take minutes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def value(self, depth: int = 0) -> Json:
        """Any JSON value, not deep."""
        makers: list[Callable[[], Json]] = [
            lambda: None, lambda: True, lambda: False, lambda: self.random.randint(-5, 5), self.text,
            lambda: self.random.choice([2**63, -(2**63), 10**30, 1e308, -0.0, 1.5]),
        ]  # fmt: skip
        if depth < 3:
            makers += [
                lambda: [self.value(depth + 1) for _ in range(self.random.randint(0, 3))],
                lambda: {self.text(): self.value(depth + 1) for _ in range(self.random.randint(0, 3))},
            ]
        return self.random.choice(makers)()

    def text(self) -> str:
        words = ("", "a", "resp_1", "call_1", "{{key}}", "use the tool look", "weather", "é\u0000\U0001f9ca", "x" * 300)
        return self.random.choice(words)

    def item(self) -> Json:
        """An input item: right, nearly right, or any value."""
        if self.random.random() < 0.1:
            return self.value()
        kind = self.random.choice([*REQUIRED, "made_up"])
        part = {"type": "input_text", "text": "hi"}
        good = {
            "role": self.random.choice(ROLES), "content": self.random.choice(["hi", [part]]),
            "call_id": self.random.choice(["call_1", "call_2"]), "output": "out", "name": "look", "arguments": "{}",
            "summary": [], "input": "x", "action": {"commands": ["ls"]}, "id": "i_1", "encrypted_content": "gAAA",
        }  # fmt: skip
        item = {"type": kind, **{name: good.get(name, {}) for name in REQUIRED.get(kind, ())}}
        return self.bent(item)

    def bent(self, body: dict[str, Json]) -> dict[str, Json]:
        """The same with, now and then, one value exchanged, lost or added."""
        roll = self.random.random()
        if roll < 0.15 and body:
            body[self.random.choice(list(body))] = self.value()
        elif roll < 0.2 and body:
            del body[self.random.choice(list(body))]
        elif roll < 0.25:
            body[self.text()] = self.value()
        return body

    def tool(self) -> Json:
        kind = self.random.choice(TOOLS)
        return self.bent({"type": kind, "name": "look", "parameters": self.schema()})

    def schema(self) -> Json:
        return self.bent(
            {
                "type": self.random.choice(["object", "string", "array", "integer", ["null", "string"]]),
                "properties": {"a": {"type": "string", "pattern": self.random.choice(["^a+$", "(", "[^a]{3}"])}},
                "required": ["a"], "items": {"$ref": "#"}, "minItems": self.random.randint(0, 2),
            }
        )  # fmt: skip

    def body(self, *, is_frame: bool) -> dict[str, Json]:
        """A create request: right, or with some fields bent."""
        body: dict[str, Json] = {
            "model": "m", "input": self.random.choice(["hi", [self.item() for _ in range(self.random.randint(0, 3))]]),
            "metadata": {"sim_words": "2"},
        }  # fmt: skip
        if is_frame:
            body["type"] = self.random.choice(["response.create"] * 8 + ["response.steer", "response.cancel"])
        names = [*FIELDS, *WEBSOCKET_FIELDS, "made_up"]
        for name in self.random.choices(names, k=self.random.choice([0, 0, 0, 1, 2])):
            body[name] = self.value()
        extras: dict[str, Callable[[], Json]] = {
            "tools": lambda: [self.tool() for _ in range(self.random.randint(0, 2))],
            "stream_id": lambda: self.random.choice(["a", "b", "c", "", "no good", 1]),
            "previous_response_id": lambda: self.random.choice(["resp_1", "", 3]),
            "generate": lambda: self.random.random() < 0.5,
            "store": lambda: self.random.random() < 0.5,
            "stream": lambda: True,
            "tool_choice": lambda: self.random.choice(["required", {"type": "function", "name": "look"}]),
            "reasoning": lambda: {"effort": "low", "summary": "auto"},
            "text": lambda: {"format": {"type": "json_schema", "name": "n", "schema": self.schema()}},
        }
        for name in self.random.sample(list(extras), k=self.random.choice([0, 1, 1, 2])):
            body[name] = extras[name]()
        return body

    def message(self, *, is_frame: bool) -> bytes:
        """The bytes of a body: JSON, JSON with damage, or noise."""
        roll = self.random.random()
        if roll < 0.03:
            return self.random.randbytes(self.random.randint(0, 60))
        if roll < 0.05:
            return json.dumps(self.value()).encode()
        message = json.dumps(self.body(is_frame=is_frame), ensure_ascii=self.random.random() < 0.5).encode()
        if roll < 0.1:
            place = self.random.randrange(len(message))
            return message[:place] + self.random.randbytes(1) + message[place + self.random.randint(0, 2) :]
        return message

    def frames(self) -> tuple[bytes, bool]:
        """The frames of one message, and whether the connection may survive them."""
        message = self.message(is_frame=True)
        roll = self.random.random()
        if roll < 0.02:
            return self.random.randbytes(self.random.randint(1, 40)), False
        if roll < 0.03:
            return Frame(Opcode.CLOSE, self.random.choice([b"", b"\x03\xe8", b"\x03\xf3why", b"\x00\x01"])).serialize(
                mask=True
            ), False
        opcode = Opcode.BINARY if roll < 0.05 else Opcode.TEXT
        if roll > 0.9 and len(message) > 2:
            return self._fragments(message, opcode), True
        extra = Frame(Opcode.PING, b"p").serialize(mask=True) if roll > 0.85 else b""
        return extra + Frame(opcode, message).serialize(mask=True), True

    def _fragments(self, message: bytes, opcode: Opcode) -> bytes:
        """One message in several frames, with a ping between them."""
        cut = self.random.randint(1, len(message) - 1)
        first = Frame(opcode, message[:cut], fin=False).serialize(mask=True)
        return (
            first
            + Frame(Opcode.PING, b"").serialize(mask=True)
            + Frame(Opcode.CONT, message[cut:]).serialize(mask=True)
        )

    def request(self) -> tuple[bytes, bool]:
        """One HTTP request, and whether the connection may survive it."""
        message = self.message(is_frame=False)
        path = self.random.choice(["/v1/responses"] * 6 + OTHER_PATHS)
        method = self.random.choice(["POST"] * 8 + ["GET", "DELETE", "PUT", "HEAD"])
        headers = {"Host": "x"}
        roll, survives = self.random.random(), True
        if roll < 0.1:
            message = zstandard.compress(message)
            headers["Content-Encoding"] = "zstd"
        elif roll < 0.2:
            headers[self.random.choice(ODD_HEADERS)] = self.random.choice(ODD_VALUES)
        headers["Content-Length"] = str(len(message))
        if 0.2 < roll < 0.22:
            headers["Content-Length"], survives = self.random.choice(["-1", "x", "0", "99999999999999"]), False
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        data = f"{head}\r\n".encode("latin-1") + message
        if self.random.random() < 0.03:
            place, survives = self.random.randrange(len(data)), False
            data = data[:place] + self.random.randbytes(1) + data[place + 1 :]
        return data, survives


async def run_connection(sim: Simulator, maker: Maker, *, cases: int) -> None:
    """Send cases on one connection, then wait for the last answer, or leave without."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sim.port)
    is_websocket = maker.random.random() < 0.7
    data, survives = UPGRADE if is_websocket else b"", True
    for _ in range(cases):
        case, survives = maker.frames() if is_websocket else maker.request()
        data += case
        if not survives:
            break
    data += (LAST_FRAME if is_websocket else LAST_REQUEST) if survives else b""
    try:
        writer.write(data)
        if maker.random.random() < 0.9:
            if not survives:
                writer.write_eof()
            await asyncio.wait_for(_read_until_last(reader), SETTLE_S)
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


async def _read_until_last(reader: asyncio.StreamReader) -> None:
    """Read until the answer to the last message is complete, or the connection ends."""
    seen = b""
    while data := await reader.read(65536):
        seen = seen[-200_000:] + data
        if b"response.completed" in seen.partition(b"the last of all")[2]:
            return


async def run(cases: int, seed: int, *, per_connection: int = 20, at_once: int = 8) -> int:
    """Run that many cases; returns how many. AssertionError when the simulator fails or leaks."""
    loop = asyncio.get_running_loop()
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    async with Simulator(seed=seed, keep_records=50, expect_violations=True, compression=False) as sim:
        done = 0
        while done < cases:
            makers = [Maker(seed + done + number) for number in range(at_once)]
            await asyncio.gather(*(run_connection(sim, maker, cases=per_connection) for maker in makers))
            done += at_once * per_connection
            del sim.violations[:]
            assert not sim.state.faults, (sim.state.faults, seed + done)
            assert not faults, (faults, seed + done)
        await settle(sim)
    return done


async def settle(sim: Simulator) -> None:
    """Wait for the connections to end and see that nothing is left of them."""
    watch, counters = sim.state.watch, sim.counters
    await watch.until(
        lambda: counters.sockets_open == 0, timeout_s=SETTLE_S, wanted="no open connection", seen=sim.describe
    )
    assert counters.responses_running == 0, sim.describe()
    assert counters.websockets_open == 0, sim.describe()


BODIES = st.integers(0, 2**32).map(lambda seed: Maker(seed).body(is_frame=True))
"""Create requests, right or bent, for the short form."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start_s = time.perf_counter()
    step, done = min(args.cases, 100_000), 0
    while done < args.cases:
        done += asyncio.run(run(step, args.seed + done))
        print(f"{done} cases in {time.perf_counter() - start_s:.0f} s, none crashed, nothing leaked", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
