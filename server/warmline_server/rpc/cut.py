"""Cuts an RPC whose status cannot leave.

gRPC sends a status behind the messages before it. A caller that reads no message holds it up for as long as its
connection lives, and with it what was written for this caller. grpc.aio has no call for a reset of its own, so this
ends the one task that keeps the RPC: grpc then lets go of it, and its core resets the stream.
"""

import asyncio
import gc

# grpc's own: it runs an RPC's handler in a task of its own and waits for the caller's end. Source: grpc 1.85.1,
# `_cygrpc/aio/server.pyx.pxi`.
_KEEPER = "_schedule_rpc_coro"


def cut_rpc(handler: "asyncio.Task[object]") -> bool:
    """Resets the stream of the RPC that `handler` serves; the handler must then end without a status.

    Looks at every RPC under way, so it is for rare moments. Returns: False when grpc keeps RPCs in another way than it
    did; the RPC then stays until its caller reads or leaves.
    """
    for task in asyncio.all_tasks():
        keeper = task.get_coro()
        if getattr(keeper, "__qualname__", "") != _KEEPER:
            continue
        # A coroutine of Cython keeps its variables in one object, of which there is no other view.
        if any(held is handler for scope in gc.get_referents(keeper) for held in gc.get_referents(scope)):
            task.cancel()
            return True
    return False
