"""What every RPC has at its edge: who calls, which session it names, and how a failure leaves.

Handlers are coroutines, never generators: a cancelled generator is closed in another task. Measured: grpcio 1.85.1.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from warmline_server.core.errors import CallerError, Reason, WarmlineError
from warmline_server.rpc import status
from warmline_server.session.call_spec import CallerGone

_log = logging.getLogger(__name__)

SESSION_KEY = "x-warmline-session"

Request = TypeVar("Request")
Response = TypeVar("Response")


def session_key(context: "grpc.aio.ServicerContext[Request, Response]", session_id: str) -> None:
    """Checks the metadata key that proxies route by. Raises: CallerError when it differs from the body's id."""
    for key, value in context.invocation_metadata() or ():
        if key == SESSION_KEY and value != session_id:
            raise CallerError(
                Reason.SESSION_KEY_MISMATCH,
                f"metadata {SESSION_KEY} differs from the request's session_id {session_id[:80]!r}",
                field="session_id",
            )


async def answered(
    context: "grpc.aio.ServicerContext[Request, Response]", work: Callable[[], Awaitable[Response]]
) -> Response:
    """Runs a handler's work; what it raises becomes a status, and never its own text where it is a fault of ours."""
    try:
        return await work()
    except WarmlineError as error:
        failure = error
    except (asyncio.CancelledError, CallerGone, grpc.aio.AbortError):
        raise
    except Exception:  # noqa: BLE001 - the edge: nothing of ours may leave as a text
        _log.exception("an RPC failed for a fault of this server")
        failure = status.internal()
    return await status.abort(context, failure)
