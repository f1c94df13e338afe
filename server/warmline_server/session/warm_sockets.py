"""Every idle socket of the server: how many there may be, how long, and whether they are still alive.

A socket is here while it waits, in a slot or in a lane, and not while an exchange runs on it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from warmline_server.clock import Clock, Timer
from warmline_server.transport.websocket import WebSocket


class Lost(Enum):
    """Why an idle socket is gone."""

    PEER = "peer"
    """The peer closed it, or no longer answers pings (D-7)."""
    AGED = "aged"
    """It would soon meet the provider's limit on a connection's life (D-8)."""
    IDLE = "idle"
    """Nobody used it for its time to live."""
    EVICTED = "evicted"
    """The server, or the tenant, holds too many; this one was used longest ago."""

    @property
    def wants_another(self) -> bool:
        """Whether its session should be warmed again: only when the loss was not our own thrift."""
        return self in (Lost.PEER, Lost.AGED)


@dataclass(frozen=True, slots=True)
class IdlePolicy:
    """How idle sockets of one upstream are looked after, seconds each; 0 switches a limit off."""

    ttl_s: float
    max_age_s: float
    ping_interval_s: float
    ping_timeout_s: float


@dataclass(slots=True)
class _Parked:
    tenant: str
    socket: WebSocket
    lost: Callable[[Lost], None]
    since_s: float
    policy: IdlePolicy
    pinged_at_s: float | None = None
    timer: Timer | None = None


class WarmSockets:
    """The idle sockets, longest unused first."""

    def __init__(self, clock: Clock, max_sockets: int, max_of_tenant: Callable[[str], int] = lambda tenant: 0) -> None:
        """Args: `max_of_tenant`: how many one tenant's sessions may have; 0: any number."""
        self._clock = clock
        self._max_of_tenant = max_of_tenant
        self._of_tenant: dict[str, OrderedDict[WebSocket, None]] = {}
        self._max_sockets = max_sockets
        self._parked: OrderedDict[WebSocket, _Parked] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parked)

    def __contains__(self, socket: object) -> bool:
        return socket in self._parked

    def park(self, tenant: str, socket: WebSocket, policy: IdlePolicy, lost: Callable[[Lost], None]) -> None:
        """A tenant's socket is idle from now on.

        `lost` is called once, if it is lost before it is taken; it disposes of it.
        """
        assert socket not in self._parked, "a socket is parked once, and taken before it is used"
        parked = _Parked(tenant, socket, lost, self._clock.now_s(), policy)
        self._parked[socket] = parked
        own = self._of_tenant.setdefault(tenant, OrderedDict())
        own[socket] = None
        socket.on_idle_lost = lambda: self._lose(socket, Lost.PEER)
        if not socket.is_open:
            self._lose(socket, Lost.PEER)
            return
        self._schedule(parked)
        most = self._max_of_tenant(tenant)
        while most and len(own) > most:
            self._lose(next(iter(own)), Lost.EVICTED)
        while len(self._parked) > self._max_sockets:
            self._lose(next(iter(self._parked)), Lost.EVICTED)

    def take(self, socket: WebSocket) -> None:
        """A socket is used again, or thrown away. Harmless when it is not parked."""
        parked = self._parked.pop(socket, None)
        socket.on_idle_lost = None
        if parked is None:
            return
        own = self._of_tenant[parked.tenant]
        del own[socket]
        if not own:
            del self._of_tenant[parked.tenant]
        if parked.timer is not None:
            parked.timer.cancel()

    def _lose(self, socket: WebSocket, cause: Lost) -> None:
        parked = self._parked.get(socket)
        self.take(socket)
        if parked is not None:
            parked.lost(cause)

    def _schedule(self, parked: _Parked) -> None:
        """Sets the one timer of an idle socket to the next thing that is due."""
        policy, due = parked.policy, []
        if policy.ttl_s > 0:
            due.append(parked.since_s + policy.ttl_s)
        if policy.max_age_s > 0:
            due.append(parked.socket.opened_at_s + policy.max_age_s)
        if policy.ping_interval_s > 0:
            if parked.pinged_at_s is not None:
                due.append(parked.pinged_at_s + policy.ping_timeout_s)
            else:
                due.append(max(parked.since_s, parked.socket.heard_at_s) + policy.ping_interval_s)
        if due:
            parked.timer = self._clock.call_at(min(due), lambda: self._look_after(parked))

    def _look_after(self, parked: _Parked) -> None:
        now_s, policy, socket = self._clock.now_s(), parked.policy, parked.socket
        if parked.pinged_at_s is not None and socket.heard_at_s >= parked.pinged_at_s:
            parked.pinged_at_s = None
        if policy.max_age_s > 0 and now_s >= socket.opened_at_s + policy.max_age_s:
            self._lose(socket, Lost.AGED)
        elif policy.ttl_s > 0 and now_s >= parked.since_s + policy.ttl_s:
            self._lose(socket, Lost.IDLE)
        elif parked.pinged_at_s is not None and now_s >= parked.pinged_at_s + policy.ping_timeout_s:
            self._lose(socket, Lost.PEER)
        else:
            quiet_since_s = max(parked.since_s, socket.heard_at_s)
            if parked.pinged_at_s is None and 0 < policy.ping_interval_s <= now_s - quiet_since_s:
                parked.pinged_at_s = now_s
                socket.ping()
            self._schedule(parked)
