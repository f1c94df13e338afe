"""A scripted Responses-API upstream on one port: WebSocket and HTTP, with records, faults and a small model.

Public: what this module exports, `warmline_simulator.cli`, and the pytest plugin. It shares no code with the server.
"""

from warmline_simulator import ev, read
from warmline_simulator.clock import Clock, LoopClock, ManualClock
from warmline_simulator.records import Counters, HandshakeRecord, Headers, RequestRecord, SteerRecord
from warmline_simulator.script import (
    Close,
    Connection,
    Drop,
    Frame,
    Gate,
    Hang,
    Nothing,
    Oversize,
    Pause,
    Ping,
    Reply,
    Script,
    Stall,
)
from warmline_simulator.settings import Settings
from warmline_simulator.simulator import Simulator, SimulatorFailedError
from warmline_simulator.watch import WaitTimeoutError

__all__ = [
    "Clock",
    "Close",
    "Connection",
    "Counters",
    "Drop",
    "Frame",
    "Gate",
    "HandshakeRecord",
    "Hang",
    "Headers",
    "LoopClock",
    "ManualClock",
    "Nothing",
    "Oversize",
    "Pause",
    "Ping",
    "Reply",
    "RequestRecord",
    "Script",
    "Settings",
    "Simulator",
    "SimulatorFailedError",
    "Stall",
    "SteerRecord",
    "WaitTimeoutError",
    "ev",
    "read",
]
