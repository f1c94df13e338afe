"""What all connections of one simulator share."""

from __future__ import annotations

import random
from collections.abc import Callable, MutableSequence

from warmline_simulator.clock import Clock
from warmline_simulator.memory import Store
from warmline_simulator.records import Counters, HandshakeRecord, Headers, RequestRecord, SteerRecord
from warmline_simulator.script import Script
from warmline_simulator.settings import Settings, TurnState
from warmline_simulator.stage import Stage
from warmline_simulator.watch import Watch

DEFAULT_MODELS = ("sim-large", "sim-small", "gpt-5.5", "gpt-5.5-codex")


class Ids:
    """Ids in the service's shapes, in an order that follows from the seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def new(self, prefix: str) -> str:
        """A fresh id: the prefix and 32 hexadecimal digits."""
        return f"{prefix}_{self._random.getrandbits(128):032x}"


class State:
    """Settings, script, memory and records of a running simulator."""

    def __init__(self, settings: Settings, script: Script, clock: Clock) -> None:
        self.settings = settings
        self.clock = clock
        self.watch = Watch()
        self.stage = Stage(script, self.watch, strict=settings.strict)
        self.ids = Ids(settings.seed)
        self.store = Store(settings.stored_responses)
        self.counters = Counters()
        self.handshakes: list[HandshakeRecord] = []
        self.requests: list[RequestRecord] = []
        self.unary_requests: list[RequestRecord] = []
        self.steers: list[SteerRecord] = []
        self.violations: list[str] = []
        self.unscripted: list[str] = []
        self.faults: list[BaseException] = []
        self.refuse_upgrades = settings.refuse_upgrades
        self.observers: list[Callable[[str, HandshakeRecord | RequestRecord], None]] = []
        self.models = tuple(script.models) if script.models is not None else DEFAULT_MODELS
        self.requests_seen = 0
        self.unary_seen = 0

    def keep(self, kept: MutableSequence[HandshakeRecord] | MutableSequence[RequestRecord]) -> None:
        """Forget the oldest records beyond the number to keep."""
        limit = self.settings.keep_records
        if limit is not None and len(kept) > limit:
            del kept[0]

    def tell(self, what: str, record: HandshakeRecord | RequestRecord) -> None:
        """Tell observers that something began or ended, and wake who waits for it."""
        for observer in self.observers:
            observer(what, record)
        self.watch.notify()

    def service_headers(self, request: Headers) -> dict[str, str]:
        """Headers the service adds to every answer and to the 101."""
        headers = {"openai-version": "2020-10-01", "openai-organization": "sim-org", "openai-processing-ms": "1"}
        if self.settings.request_ids:
            headers["x-request-id"] = self.ids.new("req")
        if self.settings.rate_limit_headers:
            used = self.counters.posts + self.counters.creates_full + self.counters.creates_delta
            headers |= {
                "x-ratelimit-limit-requests": "10000",
                "x-ratelimit-remaining-requests": str(max(0, 10000 - used)),
                "x-ratelimit-reset-requests": "6ms",
                "x-ratelimit-limit-tokens": "2000000",
                "x-ratelimit-remaining-tokens": "1999000",
                "x-ratelimit-reset-tokens": "30ms",
            }
        token = choose_turn_state(self.settings.turn_state, request)
        if token is not None:
            headers["x-codex-turn-state"] = token
        return headers


def choose_turn_state(chosen: TurnState | None, request: Headers) -> str | None:
    """The sticky-routing token for an answer; None for none."""
    return chosen(request) if callable(chosen) else chosen
