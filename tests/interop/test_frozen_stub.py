"""A stub of the first contract keeps working against today's server, and against one of a later contract."""

import asyncio
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

from interop import scenario
from interop.fake_server import NEWER_VALUE
from interop.world import FakeWorld, RealWorld, open_world

FROZEN = Path(__file__).with_name("frozen")
TRANSPORT_WEBSOCKET = 1


async def play(world: RealWorld | FakeWorld, turn_id: str) -> Any:
    """Runs the frozen stub in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(FROZEN.parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "interop.frozen.play", world.address, turn_id,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    return json.loads(printed)


def load(name: str) -> scenario.Scenario:
    with tempfile.TemporaryDirectory() as scratch:
        return scenario.load(name, Path(scratch))


async def test_frozen_stub_plays_a_turn_with_the_current_server() -> None:
    async with open_world(load("open"), None) as world:
        assert isinstance(world, RealWorld)
        told = await play(world, "turn-1")

        assert told["created"]
        assert told["refused"] == "INVALID_ARGUMENT"
        turn = told["turn"]
        assert turn["sequences"] == list(range(1, len(turn["sequences"]) + 1))
        assert (turn["members"][0], turn["members"][-1]) == ("admitted", "completed")
        assert turn["text"] == " Hello from upstream."
        assert turn["response_id"] == "resp_open"
        assert turn["transport"] == TRANSPORT_WEBSOCKET
        assert json.loads(turn["items"][0])["content"][0]["text"] == turn["text"]


async def test_frozen_stub_reads_past_what_a_newer_server_sends() -> None:
    async with open_world(load("newer_server"), None) as world:
        turn = (await play(world, "newer"))["turn"]

    assert turn["members"] == ["admitted", "attempt_started", None, "text_delta", None, "completed"]
    assert turn["text"] == "known"
    assert turn["transport"] == NEWER_VALUE


def test_frozen_stub_is_of_the_first_contract() -> None:
    """What it was made of is the image that the contract must stay compatible with."""
    image = descriptor_pb2.FileDescriptorSet.FromString((scenario.ROOT / "protos" / "warmline.v1.binpb").read_bytes())
    first = {file.name: file for file in image.file if file.name.startswith("warmline/")}

    frozen = [_descriptor(path) for path in sorted((FROZEN / "v1").glob("*_pb2.py"))]

    assert {file.name for file in frozen} == first.keys()
    for file in frozen:
        assert [m.name for m in file.message_type] == [m.name for m in first[file.name].message_type]
        for message, other in zip(file.message_type, first[file.name].message_type, strict=True):
            assert [(f.name, f.number, f.type) for f in message.field] == [
                (f.name, f.number, f.type) for f in other.field
            ]


def _descriptor(path: Path) -> descriptor_pb2.FileDescriptorProto:
    """The descriptor in a generated module, read without importing it."""
    found = re.search(r"AddSerializedFile\((b'.*')\)", path.read_text())
    assert found is not None, path
    return descriptor_pb2.FileDescriptorProto.FromString(eval(found[1]))
