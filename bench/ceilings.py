"""How fast the benchmark's own tools are, each on its own core: a figure near them says nothing about a server."""

import dataclasses
import subprocess
from dataclasses import dataclass

from bench import load
from bench.children import CACHE, PYTHON, SERVER_CORE, Child, stopping
from bench.proc import CpuTime
from bench.upstreams import Shape, Upstream


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A rate that a tool reached, and how busy the client and the other end were, 0 to 1."""

    name: str
    value: float
    unit: str
    client_share: float
    peer_share: float

    def __str__(self) -> str:
        busy = f"client {self.client_share:.0%}, other end {self.peer_share:.0%} busy"
        return f"{self.name}: {self.value:,.0f} {self.unit} ({busy})"


def measure(seconds: float) -> list[Ceiling]:
    """All ceilings, each measured for so long."""
    return [*_upstream(seconds), *_grpc(seconds)]


def _upstream(seconds: float) -> list[Ceiling]:
    found = []
    with stopping((upstream := Upstream(core=SERVER_CORE, name="ceiling-upstream")).child) as child:
        burst, paced = Shape(words=1000), Shape(words=int(50 * seconds), pace_s=0.02)
        for mode, target in (("ws", upstream.ws_url), ("http", f"{upstream.http_url}/responses")):
            plan = {"mode": mode, "target": target, "workers": 16, "warmup_turns": 1}
            upstream.set_shape(burst)
            found.append(
                _run(f"client and upstream, {mode}, burst", child, {**plan, "duration_s": seconds, "words": 1000})
            )
            upstream.set_shape(dataclasses.replace(paced, pace_s=0.0))
            paced_plan = {**plan, "workers": 400, "turns": 1, "stagger_s": 0.02}
            found.append(_run(f"{mode}, 400 streams at 50/s", child, paced_plan, lambda: upstream.set_shape(paced)))
    return found


def _grpc(seconds: float) -> list[Ceiling]:
    found = []
    for batch in (1, 50):
        command = [str(CACHE / "load"), "serve", "-batch", str(batch)]
        with stopping(Child("ceiling-grpc", command, core=SERVER_CORE)) as child:
            plan = {"mode": "grpc", "target": child.wait_for("listening "), "workers": 16, "words": 1000}
            name = f"client, gRPC, {batch} events a message"
            found.append(_run(name, child, {**plan, "duration_s": seconds, "warmup_turns": 1}))
    return found


def _run(name: str, other_end: Child, plan: load.Plan, at_ready: "load.Hook" = load.nothing) -> Ceiling:
    before: list[CpuTime] = []
    after: list[CpuTime] = []

    def ready() -> None:
        at_ready()
        before.append(CpuTime.of(other_end.pid))

    loaded = load.run(plan, at_ready=ready, at_end=lambda: after.append(CpuTime.of(other_end.pid)))
    busy_s = after[0].since(before[0])
    elapsed_s = loaded.elapsed_s
    return Ceiling(name, loaded.events / elapsed_s, "events/s", loaded.cpu_s / elapsed_s, busy_s / elapsed_s)


def of_the_simulator() -> list[str]:
    """What `warmline simulate --ceiling` says; it uses both cores."""
    command = [PYTHON, "-m", "warmline_simulator", "--ceiling"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
