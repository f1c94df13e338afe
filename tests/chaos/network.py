"""Faults of the network: what the proxy does to a link, and what that does to the exchange."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from chaos.effects import Effect, Failure, Heal, Senseless, Unanswered, Unnoticed
from chaos.phases import Phase, TransportName
from chaos.proxy import Link, Mode, Pipe, Proxy

# The product's own defaults; a test of the settings page would tell if they changed.
FALLBACK_AFTER_S = 2.0
IDLE_TIMEOUT_S = 300.0
PING_INTERVAL_S, PING_TIMEOUT_S = 30.0, 10.0

# Enough to have begun whatever comes next, too little for any of it to be whole.
CUT_BYTES = 7

EffectOf = Callable[[Phase, TransportName], Effect | Senseless]


@dataclass(frozen=True)
class NetworkFault:
    """`name` is the row's head, `says` its line in docs/chaos.md.

    `stops_answers`: while it lasts, nothing that the upstream sends comes through, and no end of the connection does.
    """

    name: str
    says: str
    effect: EffectOf
    stops_answers: bool = False

    async def at_connect(self, proxy: Proxy, *, lasting: bool = False) -> None:
        """The next connection meets the fault; those after it do not, unless it is `lasting`."""
        if self.name == "refuse":
            await proxy.refuse()
            return

        async def accept(link: Link) -> bool:
            if not lasting:
                proxy.on_accept = None
            return await self._accept(link)

        proxy.on_accept = accept

    async def _accept(self, link: Link) -> bool:
        """Returns: whether the link goes on to the upstream."""
        if self.name != "hang" and not self._end(link):
            link.on_joined = lambda: self.strike(link, Phase.CONNECT)
            return True
        if self.name in ("hang", "half-close"):
            await link.swallow()
        return False

    def _end(self, link: Link) -> bool:
        """Ends the link, where that is the fault. Returns: whether it is."""
        match self.name:
            case "reset":
                link.reset()
            case "close":
                link.close()
            case "half-close":
                link.half_close()
            case _:
                return False
        return True

    def strike(self, link: Link, phase: Phase) -> None:
        """The link meets the fault; what comes next, the request at the connect and else the answer, has not come."""
        if self._end(link):
            return
        up, down = link.pipes
        coming = up if phase is Phase.CONNECT else down
        match self.name:
            case "cut":
                (up if phase is Phase.IDLE else coming).cut_after(CUT_BYTES, link.close)
            case "corrupt":
                coming.mode = Mode.CORRUPT
            case "blackhole":
                up.mode = down.mode = Mode.DROP
            case "blackhole down":
                down.mode = Mode.DROP
            case "blackhole up":
                up.mode = Mode.DROP
            case "trickle":
                up.mode = down.mode = Mode.TRICKLE
            case "delay" | "late":
                coming.mode = Mode.HOLD
            case _:
                raise AssertionError(f"{self.name} has no place at {phase.value}")

    async def strike_idle(self, link: Link) -> None:
        """The same between two turns, where nothing is about to come."""
        if self.name == "corrupt":
            await link.pipes[1].inject(b"\xf1\x03\x00garbage")
        else:
            self.strike(link, Phase.IDLE)


async def release(link: Link) -> None:
    """Gives up what is held; whoever has left does not get it."""
    pipes: tuple[Pipe, Pipe] = link.pipes
    for pipe in pipes:
        with contextlib.suppress(OSError):
            await pipe.release()
    await asyncio.sleep(0)


def _unreachable(phase: Phase) -> Failure:
    """Until the 101 there is no WebSocket that could be lost."""
    failure = Failure("UPSTREAM_UNREACHABLE")
    return failure.unreached() if phase is Phase.CONNECT else failure.headless()


def _lost(phase: Phase, transport: TransportName) -> Effect | Senseless:
    """The connection is gone."""
    match phase, transport:
        case Phase.IDLE, "ws":
            return Unnoticed(warmed_again=True)
        case Phase.IDLE, "http":
            return Unnoticed()
        case ((Phase.CONNECT | Phase.HANDSHAKE), "ws"):
            return _unreachable(phase)
        case Phase.CONNECT, _:
            return Failure("UPSTREAM_STREAM_LOST").unreached()
        case Phase.HANDSHAKE, _:
            return Failure("UPSTREAM_STREAM_LOST").headless()
    return Failure("UPSTREAM_STREAM_LOST")


def _refuse(phase: Phase, _: TransportName) -> Effect | Senseless:
    if phase is not Phase.CONNECT:
        return Senseless("a connection that stands is not refused any more")
    return _unreachable(phase)


def silence(phase: Phase, transport: TransportName) -> Effect | Senseless:
    """Nothing more comes, and nobody says so."""
    if transport == "ws" and phase in (Phase.CONNECT, Phase.HANDSHAKE):
        return Unanswered(FALLBACK_AFTER_S)
    if transport == "ws" and phase is Phase.IDLE:
        return Unnoticed(warmed_again=True, waits_s=PING_INTERVAL_S + PING_TIMEOUT_S)
    failure = Failure("UPSTREAM_IDLE", silence_s=IDLE_TIMEOUT_S)
    if phase is Phase.CONNECT:
        return failure.unreached()
    return failure.headless() if phase in (Phase.HANDSHAKE, Phase.IDLE) else failure


def _hang(phase: Phase, transport: TransportName) -> Effect | Senseless:
    if phase is not Phase.CONNECT:
        return Senseless("later it is a blackhole")
    return silence(phase, transport)


def _blackhole(phase: Phase, transport: TransportName) -> Effect | Senseless:
    if phase is Phase.CONNECT:
        return Senseless("at the connect it is a hang")
    found = silence(phase, transport)
    # The next request of a kept connection is swallowed.
    return found.unreached() if phase is Phase.IDLE and isinstance(found, Failure) else found


def _blackhole_down(phase: Phase, transport: TransportName) -> Effect | Senseless:
    if phase is Phase.CONNECT:
        return Senseless("at the connect it is a hang: the answer to the first bytes is what would be swallowed")
    return silence(phase, transport)


def _blackhole_up(phase: Phase, transport: TransportName) -> Effect | Senseless:
    match phase, transport:
        case Phase.CONNECT, _:
            return Senseless("at the connect it is a hang")
        case Phase.HANDSHAKE, "ws":  # the 101 comes, the request does not arrive
            return Failure("UPSTREAM_IDLE", silence_s=IDLE_TIMEOUT_S).unreached()
        case Phase.IDLE, "http":
            return Failure("UPSTREAM_IDLE", silence_s=IDLE_TIMEOUT_S).unreached()
        case Phase.IDLE, "ws":
            return silence(phase, transport)
    return Unnoticed()  # the request is upstream, and nothing more has to go there


def _cut(phase: Phase, transport: TransportName) -> Effect | Senseless:
    if phase is Phase.IDLE:  # nothing passes while idle: the next request is cut
        return Failure("UPSTREAM_STREAM_LOST").unreached()
    return _lost(phase, transport)


def _corrupt(phase: Phase, transport: TransportName) -> Effect | Senseless:
    match phase, transport:
        case Phase.CONNECT, "ws":  # it cannot read the upgrade and answers 400, as what knows no WebSocket does
            return Failure("UPSTREAM_FAILED", status=400).unreached()
        case Phase.CONNECT, "http":
            return Failure("UPSTREAM_REJECTED", Heal.NEVER, status=400).unreached()
        case Phase.HANDSHAKE, "ws":
            return _unreachable(phase)
        case Phase.HANDSHAKE, "http":
            return Failure("UPSTREAM_PROTOCOL").headless()
        case Phase.IDLE, _:
            return _lost(phase, transport)
    return Failure("UPSTREAM_PROTOCOL")


def _unnoticed(_: Phase, __: TransportName) -> Effect | Senseless:
    return Unnoticed()


def _delay(phase: Phase, transport: TransportName) -> Effect | Senseless:
    if transport == "ws" and phase is Phase.IDLE:
        return Unnoticed(waits_s=PING_TIMEOUT_S - 1.0)
    if transport == "ws" and phase in (Phase.CONNECT, Phase.HANDSHAKE):
        return Unnoticed(waits_s=FALLBACK_AFTER_S - 0.5)
    return Unnoticed(waits_s=IDLE_TIMEOUT_S - 1.0)


def _late(phase: Phase, transport: TransportName) -> Effect | Senseless:
    if transport == "ws" and phase in (Phase.CONNECT, Phase.HANDSHAKE):
        return Unanswered(FALLBACK_AFTER_S, comes_late=True)
    return silence(phase, transport)


NETWORK_FAULTS: tuple[NetworkFault, ...] = (
    NetworkFault("refuse", "Nobody listens.", _refuse),
    NetworkFault("hang", "The connection is accepted, and nothing is ever read or sent.", _hang),
    NetworkFault("reset", "RST.", _lost),
    NetworkFault("close", "FIN, without a word of the protocol before it.", _lost),
    NetworkFault("half-close", "FIN from the upstream's side; what the server sends still passes.", _lost),
    NetworkFault(
        "cut",
        f"{CUT_BYTES} bytes more, then FIN. At the connect and between turns the server's own request is cut.",
        _cut,
    ),
    NetworkFault(
        "corrupt",
        "The next bytes are damaged: the head of a frame, the size of a chunk, a status line. At the connect those "
        "of the request; between turns bytes come that nobody asked for.",
        _corrupt,
    ),
    NetworkFault("blackhole", "Both directions swallow everything.", _blackhole, stops_answers=True),
    NetworkFault("blackhole down", "What the upstream sends is swallowed.", _blackhole_down, stops_answers=True),
    NetworkFault("blackhole up", "What the server sends is swallowed.", _blackhole_up),
    NetworkFault("trickle", "Both directions pass one byte at a time.", _unnoticed),
    NetworkFault(
        "delay", "Bytes are held back for nearly as long as the limit that applies.", _delay, stops_answers=True
    ),
    NetworkFault(
        "late", "Bytes are held back until the attempt was given up, and come then.", _late, stops_answers=True
    ),
)
