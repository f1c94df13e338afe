"""Who calls: settled once for every RPC, before its request is read."""

import inspect
import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import grpc

from warmline_server.callers import ANYBODY, Caller, Refused, unauthenticated
from warmline_server.clock import Clock
from warmline_server.core.errors import WarmlineError
from warmline_server.rpc import status
from warmline_server.rpc.handlers import Behaviour, wrapped

if TYPE_CHECKING:
    from warmline_server.callers.authenticator import Authenticator

_log = logging.getLogger(__name__)

# Probes know no tenant; what they are told is no secret.
OPEN = ("/grpc.health.v1.Health/",)
# Somebody who guesses must not fill the log: each cause is logged so often, with the number of those left out.
LOG_INTERVAL_S = 10.0

# Set in the RPC's own task, where its handler runs too. Measured: grpcio 1.85.1. Without a default, so that a handler
# which nobody has authenticated fails, and is not taken for the blank tenant's.
current_caller: ContextVar[Caller] = ContextVar("current_caller")


def tenant_of(context: "grpc.aio.ServicerContext[Any, Any]") -> str:
    """The caller's tenant; blank on a server without authentication, where all callers are one."""
    return current_caller.get().tenant


class CallerInterceptor(grpc.aio.ServerInterceptor):
    """Lets nobody past who is not known. Goes after the tracing, so that refusals have their span."""

    def __init__(
        self,
        authenticator: "Authenticator | None",
        *,
        clock: Clock,
        refused: Callable[[str], None] = lambda reason: None,
    ) -> None:
        """Args: `authenticator` None: anybody may call; `refused` is told the reason of each refusal."""
        self._authenticator = authenticator
        self._clock = clock
        self._refused = refused
        self._logged: dict[str, tuple[float, int]] = {}

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN):
            return handler
        if self._authenticator is None:
            current_caller.set(ANYBODY)
            return handler
        try:
            caller = await self._authenticator.by_token(details.invocation_metadata)
        except Exception as error:  # noqa: BLE001 - whoever cannot be checked is refused, whatever the cause
            return self._refusing(error, details.method)
        if caller is not None:
            current_caller.set(caller)
            return handler
        return self._by_certificate(handler, details.method, self._authenticator)

    def _refusing(self, error: Exception, method: str) -> Any:
        """A handler that is called before the request is read: who is not known cannot make the server hold one."""

        async def refuse(requests: object, context: Any) -> NoReturn:
            await status.abort(context, self._failure(error, method, context.peer()))

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _by_certificate(self, handler: Any, method: str, authenticator: "Authenticator") -> Any:
        """The same handler behind a look at the connection, which an interceptor itself does not see."""

        def wrap(behaviour: Any) -> Behaviour:
            async def checked(request: Any, context: Any) -> Any:
                try:
                    current_caller.set(authenticator.by_certificate(context.auth_context()))
                except Exception as error:  # noqa: BLE001 - as above
                    await status.abort(context, self._failure(error, method, context.peer()))
                answer = behaviour(request, context)
                if not inspect.isasyncgen(answer):
                    return await answer
                async for message in answer:  # of reflection, which is not ours
                    await context.write(message)
                return None

            return checked

        return wrapped(handler, wrap)

    def _failure(self, error: Exception, method: str, peer: str) -> WarmlineError:
        """What the caller is told; the cause stays here."""
        if isinstance(error, Refused):
            failure: WarmlineError = unauthenticated()
            why = error.why
        elif isinstance(error, WarmlineError):
            failure, why = error, error.text
        else:
            # Its text and its traceback's are a library's, and may quote a token.
            failure, why = status.internal(), f"a fault of this server: {type(error).__name__}"
        self._refused(failure.reason)
        self._log(why, method, peer)
        return failure

    def _log(self, why: str, method: str, peer: str) -> None:
        now_s = self._clock.now_s()
        logged_at_s, left_out = self._logged.get(why, (-LOG_INTERVAL_S, 0))
        if now_s - logged_at_s < LOG_INTERVAL_S:
            self._logged[why] = (logged_at_s, left_out + 1)
            return
        self._logged[why] = (now_s, 0)
        told = {"why": why, "method": method.lstrip("/"), "peer": peer, "left_out": left_out}
        _log.warning("caller refused", extra=told)
