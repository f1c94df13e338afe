"""One call as its caller sees it: read to its end, whatever it is, or left in one of the ways there are."""

import asyncio
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from e2e.kit import DETAILS_KEY
from warmline.v1 import types_pb2

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


class Leave(Enum):
    """How a caller leaves a turn."""

    CANCEL = "cancels the call"
    CANCEL_TURN = "CancelTurn"
    DEADLINE = "its deadline passes"
    MAX_DURATION = "max_duration passes"
    CHANNEL = "its channel is closed"


@dataclass(slots=True)
class Told:
    """What one call told."""

    items: list[types_pb2.Item] = field(default_factory=list)
    events: int = 0
    position: int = 0
    calls: list[str] = field(default_factory=list)
    """`call_id`s of function calls."""
    error: str = ""
    """The reason of the server's status, its code where there is none; blank: it completed."""


async def cancel_after(call: Any, after_s: float) -> None:
    """Cancels a call in a while."""
    await asyncio.sleep(after_s)
    call.cancel()


async def close_after(channel: grpc.aio.Channel, after_s: float) -> None:
    """Closes a channel in a while, and with it its calls."""
    await asyncio.sleep(after_s)
    await channel.close()


async def read(call: Any) -> Told:
    """Reads a call to its end, whatever it is."""
    told = Told()
    try:
        while (message := await call.read()) is not grpc.aio.EOF:
            told.events += len(message.events)
            for event in message.events:
                match event.WhichOneof("event"):
                    case "item_done":
                        told.items.append(event.item_done.item)
                        json = event.item_done.item.json
                        if b'"function_call"' in json[:2000]:
                            told.calls.append(_call_id(json))
                    case "completed":
                        told.position = event.completed.history_position
    except grpc.aio.AioRpcError as error:
        told.error = _reason(error) or error.code().name
    except (asyncio.CancelledError, grpc.aio.UsageError):
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        told.error = "CANCELLED"  # by this side: the call was cancelled, not whoever reads it
    return told


def _reason(error: grpc.aio.AioRpcError) -> str:
    """The reason of the server's status; blank when the status is of this side's own making."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    return str(info.reason)
    return ""


def _call_id(json: bytes) -> str:
    return json.partition(b'"call_id":"')[2].partition(b'"')[0].decode()
