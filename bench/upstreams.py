"""The upstreams that paths are measured against."""

import dataclasses
import json
import urllib.request
from dataclasses import dataclass
from typing import ClassVar, Protocol

from bench.children import CACHE, PYTHON, RIG_CORE, Child

# No proxy of the environment between us and loopback.
_open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

WARM_UP_WORDS = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """What every answer looks like: `words` deltas of `event_bytes`, `pace_s` apart; 0 is all at once."""

    words: int = 24
    pace_s: float = 0.0
    first_delay_s: float = 0.0
    event_bytes: int = 32
    tool: int = 0

    @property
    def for_warming_up(self) -> "Shape":
        """A short answer of the kind without a pace: it opens the line and runs the code, more would only take time."""
        return dataclasses.replace(self, words=min(self.words, WARM_UP_WORDS), pace_s=0.0, first_delay_s=0.0)

    @property
    def query(self) -> str:
        return "&".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


class AnyUpstream(Protocol):
    """What cells ask of an upstream."""

    child: Child
    certificate: str
    """PEM file that its TLS certificate is checked with; blank: it speaks plain text."""

    @property
    def http_url(self) -> str:
        """Where `/responses` is appended to."""

    @property
    def ws_url(self) -> str:
        """Where a WebSocket is opened."""

    def set_shape(self, shape: Shape) -> None:
        """What all answers look like from now on."""

    def stats(self) -> dict[str, int]:
        """What it has counted so far."""


class Upstream:
    """The fast one of `bench/upstream`, on the core of the load client."""

    certificate = ""
    FIRST_SHAPE: ClassVar[Shape] = Shape()

    def __init__(self, *, handshake_delay_s: float = 0.0, core: int | None = RIG_CORE, name: str = "upstream") -> None:
        command = [str(CACHE / "upstream"), "-handshake-delay", f"{handshake_delay_s}s"]
        self.child = Child(name, command, core=core)
        self.address = self.child.wait_for("listening ")

    @property
    def http_url(self) -> str:
        """Where `/responses` is appended to."""
        return f"http://{self.address}/v1"

    @property
    def ws_url(self) -> str:
        """Where a WebSocket is opened."""
        return f"ws://{self.address}/v1/responses"

    def set_shape(self, shape: Shape) -> None:
        """All answers from now on."""
        self._get(f"shape?{shape.query}")

    def stats(self) -> dict[str, int]:
        """Its counters; see `bench/upstream`."""
        counters: dict[str, int] = json.loads(self._get("stats"))
        return counters

    def _get(self, what: str) -> bytes:
        with _open(f"http://{self.address}/bench/{what}", timeout=10) as answer:
            body: bytes = answer.read()
            return body


class Simulator:
    """`warmline simulate`, for what needs TLS or compression. Shapes are given when it starts."""

    def __init__(self, shape: Shape, *flags: str, core: int | None = RIG_CORE) -> None:
        command = [PYTHON, "-m", "warmline_simulator", "--port", "0", "--quiet", "--keep-records", "0"]
        command += ["--words", str(shape.words), "--pace", str(shape.pace_s), *flags]
        self.child = Child("simulator", command, core=core, environ={"PYTHONUNBUFFERED": "1"})
        self._url = self.child.wait_for("simulator: ")
        self.certificate = self.child.wait_for("certificate for clients: ") if "--tls-self-signed" in flags else ""

    @property
    def http_url(self) -> str:
        """Where `/responses` is appended to."""
        return self._url

    @property
    def ws_url(self) -> str:
        """Where a WebSocket is opened."""
        return self._url.replace("http", "ws", 1) + "/responses"

    def set_shape(self, shape: Shape) -> None:
        """Its shape is settled when it starts."""

    def stats(self) -> dict[str, int]:
        """It is not asked."""
        return {}
