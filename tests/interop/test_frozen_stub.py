"""A stub of the first contract keeps working against today's server, and against one of a later contract."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from interop.fake_server import NEWER_VALUE
from interop.scenario import ROOT, Scenario
from interop.world import FakeWorld, RealWorld, open_world
from warmline_simulator import Hang, Reply, Script, ev

FROZEN = Path(__file__).with_name("frozen")
UV = ROOT / ".tools" / "bin" / "uv"
IMAGE = ROOT / "protos" / "warmline.v1.binpb"
# Of the image of the first contract, which is never made again.
IMAGE_SHA256 = "2239528762a8e13c561700cae4e4fb5e0126d5a0dfa99a0c0af901980bb50a7d"
TRANSPORT_WEBSOCKET = 1


async def play(world: RealWorld | FakeWorld, *acts: str) -> dict[str, Any]:
    """Runs the frozen stub in a process of its own; returns what it understood, by act."""
    environment = {**os.environ, "PYTHONPATH": str(FROZEN.parents[1])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "interop.frozen.play", world.address, *acts,
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, said = await process.communicate()
    assert process.returncode == 0, said.decode()
    told: dict[str, Any] = json.loads(printed)
    assert told.pop("modules_of_today") == [], "the two stubs share their descriptors' names: one process, one stub"
    return told


def hello(response_id: str = "") -> Reply:
    return Reply(events=ev.text_response("Hello.", response_id=response_id or None))


def real(*replies: Reply) -> Scenario:
    return Scenario(name="frozen", title="", peer="server", steps=(), script=Script(creates=list(replies)))


FAKE = Scenario(name="frozen", title="", peer="fake", steps=(), script=Script())


def check_whole_turn(turn: dict[str, Any], text: str, response_id: str) -> None:
    """What holds of each turn that ended well."""
    assert turn["sequences"] == list(range(1, len(turn["sequences"]) + 1))
    assert (turn["members"][0], turn["members"][-1]) == ("admitted", "completed")
    assert turn["text"] == text
    assert turn["response_id"] == response_id


async def test_frozen_stub_opens_a_session_and_plays_turns_with_tools() -> None:
    call = Reply(events=ev.function_call_response("look", "{}", "call_1", response_id="resp_2"))
    lake = Reply(events=ev.text_response("A lake.", response_id="resp_3"))
    async with open_world(real(hello("resp_1"), call, lake), None) as world:
        assert isinstance(world, RealWorld)
        told = await play(world, "open_session", "turn", "tool_loop", "inferences", "close")

        assert told["open_session"] == {"created": True, "slot": "SLOT_STATE_READY"}
        check_whole_turn(told["turn"], "Hello.", "resp_1")
        assert told["turn"]["transport"] == TRANSPORT_WEBSOCKET
        assert json.loads(told["turn"]["items"][0])["content"][0]["text"] == "Hello."
        check_whole_turn(told["tool_loop"]["call"], "", "resp_2")
        check_whole_turn(told["tool_loop"]["end"], "A lake.", "resp_3")
        assert told["tool_loop"]["end"]["incremental"]
        assert told["inferences"]["statuses"].count("INFERENCE_STATUS_COMPLETED") == 3
        assert [len(turn["members"]) for turn in (told["turn"], *told["tool_loop"].values()) if turn["unknown"]] == []
        assert (world.app.registry.running_calls, world.sim.problems()) == (0, [])


async def test_frozen_stub_cancels_and_the_upstream_stops() -> None:
    silent = [Reply(events=[ev.created(), ev.text_delta("one"), Hang()]) for _ in range(2)]
    async with open_world(real(*silent), None) as world:
        assert isinstance(world, RealWorld)
        told = await play(world, "cancel", "cancel_turn")
        await world.act("wait", ["aborts", "2"], {})
        await world.wait_calls_ended()

        assert told["cancel"] == {"code": "CANCELLED"}
        assert told["cancel_turn"] == {"ended": 1, "code": "CANCELLED", "reason": "TURN_CANCELLED"}
        assert world.sim.problems() == []


async def test_frozen_stub_reads_codes_and_reasons() -> None:
    async with open_world(real(), None) as world:
        told = await play(world, "refused", "missing")

    assert told == {
        "refused": {"code": "INVALID_ARGUMENT", "reason": "INVALID_REQUEST"},
        "missing": {"code": "NOT_FOUND", "reason": "SESSION_NOT_FOUND"},
    }


def check_newer(turn: dict[str, Any]) -> None:
    """What the stub must make of a turn of which it knows only a part."""
    assert turn["members"] == ["admitted", "attempt_started", "text_delta", "completed"]
    assert turn["unknown"] == 2
    assert turn["sequences"] == [1, 2, 3, 4, 5, 6]
    assert turn["text"] == "known"
    assert turn["transport"] == NEWER_VALUE


async def test_frozen_stub_reads_past_what_a_newer_server_sends() -> None:
    async with open_world(FAKE, None) as world:
        check_newer((await play(world, "newer"))["newer"])


async def test_a_server_that_broke_the_contract_is_noticed() -> None:
    async with open_world(FAKE, None) as world:
        told = await play(world, "broken")

    with pytest.raises(AssertionError, match="text_delta"):
        check_newer(told["broken"])
    assert told["broken"]["text"] == ""


def test_image_is_that_of_the_first_contract() -> None:
    assert hashlib.sha256(IMAGE.read_bytes()).hexdigest() == IMAGE_SHA256


# The generators are installed on the first run.
@pytest.mark.timeout(300)
def test_frozen_stub_is_what_the_generators_make_of_the_image(tmp_path: Path) -> None:
    image = descriptor_pb2.FileDescriptorSet.FromString(IMAGE.read_bytes())
    for file in image.file:
        _drop_json_names(file.message_type)
    (tmp_path / "image.binpb").write_bytes(image.SerializeToString())
    names = [file.name for file in image.file if file.name.startswith("warmline/")]
    subprocess.run(
        [UV, "run", "--quiet", "--isolated", "--no-project", "--with-requirements", ROOT / "protos" / "generators.txt",
         "python", "-m", "grpc_tools.protoc", f"--descriptor_set_in={tmp_path / 'image.binpb'}",
         f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", *names],
        check=True,
    )  # fmt: skip

    made = {path.name: path.read_text() for path in (tmp_path / "warmline" / "v1").glob("*.py")}
    kept = {path.name: path.read_text() for path in (FROZEN / "v1").glob("*_pb2*.py")}

    assert len(kept) == len(names) + 3
    assert {name: _in_its_own_package(made[name]) for name in kept} == kept


def _drop_json_names(messages: Any) -> None:
    """Takes away what the image says and a generated stub does not."""
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        _drop_json_names(message.nested_type)


def _in_its_own_package(code: str) -> str:
    return "# ruff: noqa\n# mypy: ignore-errors\n# fmt: off\n" + code.replace(
        "from warmline.v1 ", "from interop.frozen.v1 "
    )
