"""The slot's keeper, where the moment matters."""

import asyncio

from manual_clock import ManualClock
from warmline_server.core import failures
from warmline_server.core.records import ConnectRecord, SessionRecord
from warmline_server.core.slot import SlotState
from warmline_server.session.handshake import Handshake
from warmline_server.session.keeper import SlotKeeper
from warmline_server.session.warm_sockets import IdlePolicy, WarmSockets
from warmline_server.transport.websocket import WebSocket


def failing_handshake() -> Handshake:
    """A handshake that fails in its task's first step."""

    async def connect() -> WebSocket:
        raise failures.connect_failed("refused")

    session = SessionRecord("session-1", "conversation-1", "", "simulator", "openai", "127.0.0.1", 80)
    record = ConnectRecord(
        connection_id="connection-1", session=session, call=None, started_unix_ns=0, started_at_s=0.0
    )
    handshake = Handshake(record, carries_turn_state=False)
    handshake.start(connect())
    return handshake


def keeper() -> SlotKeeper:
    clock = ManualClock()
    return SlotKeeper(
        open_warm=failing_handshake,
        may_warm=lambda: True,
        is_current=lambda handshake: True,
        failed=lambda failure: None,
        changed=lambda former, now: None,
        warm_sockets=WarmSockets(clock, 1),
        idle_policy=IdlePolicy(ttl_s=0.0, max_age_s=0.0, ping_interval_s=0.0, ping_timeout_s=0.0),
        clock=clock,
        warm_up_limit_s=1.0,
        rearm_delay_s=lambda: 0.0,
    )


async def test_wait_settled_in_the_moment_between_a_warm_ups_end_and_its_note_waits_for_the_note() -> None:
    slot = keeper()
    slot.arm()
    await asyncio.sleep(0)  # The task has ended in this pass of the loop; its callbacks run in the next.
    states = [slot.state]

    await slot.wait_settled()

    states.append(slot.state)
    assert states == [SlotState.IN_FLIGHT, SlotState.IDLE]
    assert slot.last_failure is not None
