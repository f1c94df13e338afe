"""Idle sockets over real connections, on a clock moved by hand."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from manual_clock import ManualClock
from warmline_server.session.warm_sockets import IdlePolicy, Lost, WarmSockets
from warmline_server.transport.websocket import SocketOptions, WebSocket, open_websocket

NO_LIMITS = IdlePolicy(ttl_s=0, max_age_s=0, ping_interval_s=0, ping_timeout_s=0)
WITH_PINGS = replace(NO_LIMITS, ping_interval_s=30, ping_timeout_s=10)


class PeerEnd(ServerConnection):
    """The server's end of a socket: counts pings."""

    pings = 0

    def process_event(self, event: Event) -> None:
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self.pings += 1
        super().process_event(event)

    async def exchange_pings(self) -> None:
        """Returns when the client has read everything that this end had sent before."""
        await (await self.ping())


class Line:
    """Opens sockets to a peer; `ends` are the peer's ends, in order of opening."""

    def __init__(self, server: Server, clock: ManualClock, ends: list[PeerEnd]) -> None:
        (address, *_) = server.sockets
        self._url = f"ws://127.0.0.1:{address.getsockname()[1]}"
        self._clock = clock
        self._sockets: list[WebSocket] = []
        self.ends = ends

    async def open(self) -> WebSocket:
        options = SocketOptions(
            url=self._url, tls=None, compression=False, max_frame_bytes=1024, connect_timeout_s=5.0, proxy=None
        )
        name = f"socket {len(self._sockets)}"
        self._sockets.append(await open_websocket(options, [], connection_id=name, clock=self._clock))
        return self._sockets[-1]

    async def close(self) -> None:
        for socket in self._sockets:
            socket.drop("test")
            await socket.wait_closed()
        for end in self.ends:
            end.transport.abort()


class Park:
    """The warm sockets under test, and the losses that were told, by connection id."""

    def __init__(self, clock: ManualClock, max_sockets: int = 10, max_of_tenant: int = 0) -> None:
        self.sockets = WarmSockets(clock, max_sockets, lambda tenant: max_of_tenant)
        self.losses: list[tuple[str, Lost]] = []
        self.lost = asyncio.Event()

    def park(self, socket: WebSocket, policy: IdlePolicy, tenant: str = "") -> None:
        self.sockets.park(tenant, socket, policy, lambda cause: self._note(socket, cause))

    def _note(self, socket: WebSocket, cause: Lost) -> None:
        self.losses.append((socket.connection_id, cause))
        self.lost.set()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def line(clock: ManualClock) -> AsyncIterator[Line]:
    ends: list[PeerEnd] = []

    async def hold(end: ServerConnection) -> None:
        assert isinstance(end, PeerEnd)
        ends.append(end)
        await end.wait_closed()

    async with serve(hold, "127.0.0.1", 0, create_connection=PeerEnd, ping_interval=None) as server:
        opened = Line(server, clock, ends)
        yield opened
        await opened.close()


@pytest.fixture
def park(clock: ManualClock) -> Park:
    return Park(clock)


# Limits


@pytest.mark.parametrize(
    ("policy", "cause"),
    [(replace(NO_LIMITS, ttl_s=60), Lost.IDLE), (replace(NO_LIMITS, max_age_s=60), Lost.AGED)],
    ids=["idle", "aged"],
)
async def test_warm_socket_is_lost_at_its_limit_and_not_before(
    line: Line, clock: ManualClock, park: Park, policy: IdlePolicy, cause: Lost
) -> None:
    park.park(await line.open(), policy)

    await clock.advance(59.999)
    before = list(park.losses)
    await clock.advance(0.001)
    await clock.advance(600)

    assert before == []
    assert park.losses == [("socket 0", cause)]
    assert len(park.sockets) == 0


@pytest.mark.conformance("D-8")
async def test_warm_socket_ages_from_its_opening_and_idles_from_its_parking(
    line: Line, clock: ManualClock, park: Park
) -> None:
    aged, idle = await line.open(), await line.open()
    await clock.advance(40)

    park.park(aged, replace(NO_LIMITS, max_age_s=60))
    park.park(idle, replace(NO_LIMITS, ttl_s=60))
    await clock.advance(20)
    after_20 = list(park.losses)
    await clock.advance(40)

    assert after_20 == [("socket 0", Lost.AGED)]
    assert park.losses == [("socket 0", Lost.AGED), ("socket 1", Lost.IDLE)]


async def test_warm_socket_that_is_both_aged_and_idle_counts_as_aged(
    line: Line, clock: ManualClock, park: Park
) -> None:
    park.park(await line.open(), replace(NO_LIMITS, ttl_s=60, max_age_s=60))

    await clock.advance(60)

    assert park.losses == [("socket 0", Lost.AGED)]


async def test_warm_socket_parked_again_has_its_whole_time_to_live(line: Line, clock: ManualClock, park: Park) -> None:
    socket, policy = await line.open(), replace(NO_LIMITS, ttl_s=60)
    park.park(socket, policy)
    await clock.advance(50)
    park.sockets.take(socket)

    park.park(socket, policy)
    await clock.advance(59)

    assert park.losses == []


async def test_warm_socket_without_limits_has_no_timer(line: Line, clock: ManualClock, park: Park) -> None:
    before = clock.pending_at_s

    park.park(await line.open(), NO_LIMITS)

    assert clock.pending_at_s == before


async def test_warm_socket_taken_is_watched_no_more(line: Line, clock: ManualClock, park: Park) -> None:
    socket = await line.open()
    before = clock.pending_at_s
    park.park(socket, IdlePolicy(ttl_s=60, max_age_s=60, ping_interval_s=10, ping_timeout_s=5))

    park.sockets.take(socket)

    assert len(park.sockets) == 0
    assert clock.pending_at_s == before
    line.ends[0].transport.abort()
    await socket.wait_closed()
    assert park.losses == []


async def test_warm_socket_taken_twice_is_harmless(line: Line, park: Park) -> None:
    socket = await line.open()
    park.park(socket, NO_LIMITS)

    park.sockets.take(socket)
    park.sockets.take(socket)

    assert len(park.sockets) == 0


# Peers


@pytest.mark.conformance("D-7")
async def test_warm_socket_closed_by_its_peer_is_lost_at_once(line: Line, park: Park) -> None:
    park.park(await line.open(), NO_LIMITS)

    await line.ends[0].close(1001)
    await park.lost.wait()

    assert park.losses == [("socket 0", Lost.PEER)]
    assert len(park.sockets) == 0


async def test_warm_socket_cut_by_its_peer_is_lost_at_once(line: Line, park: Park) -> None:
    park.park(await line.open(), NO_LIMITS)

    line.ends[0].transport.abort()
    await park.lost.wait()

    assert park.losses == [("socket 0", Lost.PEER)]


async def test_warm_socket_closed_before_it_is_parked_is_lost_in_parking(
    line: Line, clock: ManualClock, park: Park
) -> None:
    socket = await line.open()
    line.ends[0].transport.abort()
    await socket.wait_closed()

    park.park(socket, replace(NO_LIMITS, ttl_s=60))

    assert park.losses == [("socket 0", Lost.PEER)]
    assert len(park.sockets) == 0
    assert clock.pending_at_s == []


# Pings


@pytest.mark.conformance("D-7")
async def test_warm_socket_that_is_quiet_is_pinged_and_kept_when_it_answers(
    line: Line, clock: ManualClock, park: Park
) -> None:
    start_s = clock.now_s()
    park.park(await line.open(), WITH_PINGS)
    (end,) = line.ends

    assert clock.pending_at_s == [start_s + 30]
    await clock.advance(30)
    await end.exchange_pings()
    assert (end.pings, clock.pending_at_s) == (1, [start_s + 40])
    await clock.advance(10)
    assert clock.pending_at_s == [start_s + 60]
    await clock.advance(20)
    await end.exchange_pings()
    assert end.pings == 2
    assert park.losses == []


@pytest.mark.conformance("D-7")
async def test_warm_socket_that_answers_no_ping_is_lost(line: Line, clock: ManualClock, park: Park) -> None:
    park.park(await line.open(), WITH_PINGS)
    line.ends[0].transport.pause_reading()

    await clock.advance(30 + 9.999)
    before = list(park.losses)
    await clock.advance(0.001)

    assert before == []
    assert park.losses == [("socket 0", Lost.PEER)]


async def test_warm_socket_that_is_heard_is_not_pinged(line: Line, clock: ManualClock, park: Park) -> None:
    park.park(await line.open(), WITH_PINGS)
    (end,) = line.ends

    await clock.advance(20)
    await end.exchange_pings()
    await clock.advance(29.9)
    await end.exchange_pings()

    assert end.pings == 0


async def test_warm_socket_heard_while_a_ping_waits_is_kept(line: Line, clock: ManualClock, park: Park) -> None:
    """Anything that the peer sends shows that it lives, a ping of its own included."""
    park.park(await line.open(), WITH_PINGS)
    (end,) = line.ends
    end.transport.pause_reading()
    await clock.advance(35)

    waiter = await end.ping()
    end.transport.resume_reading()
    await waiter
    await clock.advance(5)

    assert park.losses == []


# How many


async def test_warm_sockets_beyond_their_number_lose_the_one_parked_longest(line: Line, clock: ManualClock) -> None:
    park = Park(clock, max_sockets=2)
    first, second, third = [await line.open() for _ in range(3)]
    park.park(first, NO_LIMITS)
    park.park(second, NO_LIMITS)
    park.sockets.take(first)
    park.park(first, NO_LIMITS)

    park.park(third, NO_LIMITS)

    assert park.losses == [("socket 1", Lost.EVICTED)]
    assert len(park.sockets) == 2


async def test_warm_sockets_of_no_number_keep_none(line: Line, clock: ManualClock) -> None:
    park = Park(clock, max_sockets=0)

    park.park(await line.open(), replace(NO_LIMITS, ttl_s=60))

    assert park.losses == [("socket 0", Lost.EVICTED)]
    assert len(park.sockets) == 0
    assert clock.pending_at_s == []


@pytest.mark.parametrize(
    ("cause", "wants_another"), [(Lost.PEER, True), (Lost.AGED, True), (Lost.IDLE, False), (Lost.EVICTED, False)]
)
def test_lost_socket_is_replaced_unless_the_loss_was_our_thrift(cause: Lost, wants_another: bool) -> None:
    assert cause.wants_another is wants_another


async def test_tenant_with_too_many_loses_its_own_longest_unused_and_no_others(line: Line, clock: ManualClock) -> None:
    park = Park(clock, max_sockets=10, max_of_tenant=2)
    others = await line.open()
    park.park(others, NO_LIMITS, "b")
    own = [await line.open() for _ in range(3)]
    for socket in own:
        park.park(socket, NO_LIMITS, "a")

    assert park.losses == [(own[0].connection_id, Lost.EVICTED)]
    for socket in (others, *own[1:]):
        park.sockets.take(socket)
    assert len(park.sockets) == 0
    assert not park.sockets._of_tenant, "tenants without a socket are forgotten"
