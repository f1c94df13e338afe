"""Scenario files, read: see client_stubs/scenarios/README.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from warmline_simulator.script import Script
from warmline_simulator.script_file import load as load_script

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "client_stubs" / "scenarios"

Peer = Literal["server", "fake", "fake_tls", "fake_mtls", "fake_relay"]


class Checks(msgspec.Struct, forbid_unknown_fields=True):
    """What must hold when a runner has ended."""

    aborts: int = 0
    """Answers that the simulator gave up because we had gone."""
    counters: dict[str, int] = {}
    """Counters of the simulator, by name."""
    bodies: dict[int, list[str]] = {}
    """Texts that stand, byte for byte, in the body of the n-th request upstream."""


class ServerPart(msgspec.Struct, forbid_unknown_fields=True):
    """Settings of the real server."""

    profile: dict[str, Any] = {}
    """Fields of the profile of the upstream "simulator"."""
    limits: dict[str, Any] = {}
    upstreams: dict[str, dict[str, Any]] = {}
    """Further profiles by name."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    title: str
    steps: list[dict[str, Any]]
    peer: Peer = "server"
    server: ServerPart = msgspec.field(default_factory=ServerPart)
    client: dict[str, Any] = {}
    checks: Checks = msgspec.field(default_factory=Checks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One scenario; `script` and `simulator` say how the simulator behaves."""

    name: str
    title: str
    peer: Peer
    steps: Sequence[Mapping[str, Any]]
    script: Script
    server: ServerPart = field(default_factory=ServerPart)
    client: Mapping[str, Any] = field(default_factory=dict)
    checks: Checks = field(default_factory=Checks)
    simulator: Mapping[str, Any] = field(default_factory=dict)

    def for_runner(self, tls_folder: Path) -> bytes:
        """What a runner reads: one JSON object. Args: `tls_folder` is where `{tls}` stands for."""
        text = json.dumps({"name": self.name, "client": self.client, "steps": self.steps})
        return text.replace("{tls}", str(tls_folder)).encode()


def names() -> list[str]:
    """All scenarios, by name."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, scratch: Path) -> Scenario:
    """Reads a scenario.

    Args: `scratch`: a folder for the simulator's part, which has a reader of its own.
    Raises: OSError, ValueError with what is wrong.
    """
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    own, _, script_text = text.partition("\n---\n")
    try:
        read = msgspec.convert(yaml.safe_load(own), _File)
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"read scenario {name}: {error}") from error
    script_path = scratch / f"{name}.simulator.yaml"
    script_path.write_text(script_text or "{}", encoding="utf-8")
    loaded = load_script(script_path)
    return Scenario(
        name=name,
        title=read.title,
        peer=read.peer,
        steps=read.steps,
        script=loaded.script,
        server=read.server,
        client=read.client,
        checks=read.checks,
        simulator=loaded.settings,
    )
