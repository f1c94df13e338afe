"""One conversation's session at the server, seen from the client."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Literal, Unpack

import grpc
import grpc.aio

from warmline import items
from warmline.connection import Connection
from warmline.errors import NotFoundError, UnavailableError, WarmlineError, from_rpc_error
from warmline.items import ItemLike, Json, Options
from warmline.turn import Turn
from warmline.v1 import session_service_pb2, trace_service_pb2, turn_service_pb2, types_pb2

Start = Literal["now", "lazy", "attach"]
RetryMode = Literal["before_output", "reference", "never"]
BusyMode = Literal["reject", "wait", "preempt"]
EventMode = Literal["typed", "raw", "both"]

# How long leaving a session waits for its close. A choice: the server's idle expiry does the rest.
_CLOSE_S = 5.0

_WatchCall = grpc.aio.UnaryStreamCall[session_service_pb2.WatchSessionRequest, session_service_pb2.WatchSessionResponse]


class Session:
    """A session, made by `Client.session`. Its config goes with each turn, so a restarted server is not noticed."""

    def __init__(
        self,
        connection: Connection,
        session_id: str,
        config: types_pb2.SessionConfig | None,
        *,
        start: Start,
        close_on_exit: bool,
    ) -> None:
        self.session_id = session_id
        self.config = config
        """None: the session is another's, and only attached to."""
        self._connection = connection
        self._start = start
        self._close_on_exit = close_on_exit

    async def __aenter__(self) -> "Session":
        """Creates the session and so begins its warm-up, unless `start` says otherwise.

        Raises:
            WarmlineError: the server refused it.
        """
        if self._start == "now":
            request = session_service_pb2.CreateSessionRequest(session_id=self.session_id, config=self.config)
            await self._connection.unary(self._connection.sessions.CreateSession, request, session_id=self.session_id)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._close_on_exit:
            return
        # A session that is gone is closed, and a server that is gone has closed it; and what ended the block matters
        # more than how the close went.
        gone = (NotFoundError, UnavailableError, TimeoutError)
        ignored = gone if error is None else (WarmlineError, TimeoutError)
        with contextlib.suppress(*ignored):
            async with asyncio.timeout(_CLOSE_S):
                await self.close()

    def turn(
        self,
        input: ItemLike | Iterable[ItemLike],
        *,
        turn_id: str = "",
        lane: str = "",
        request_id: str = "",
        append_at: int | None = None,
        retry: RetryMode = "before_output",
        on_busy: BusyMode = "reject",
        events: EventMode = "typed",
        max_duration_s: float | None = None,
        timeout_s: float | None = None,
        request_json: Json = b"",
        turn_metadata: Json = b"",
        **options: Unpack[Options],
    ) -> Turn:
        """Makes a turn; entering it sends it.

        Args:
            input: the conversation, oldest first, or a single item; a text is a user's message.
            turn_id: the same for a user request and all its tool follow-ups; blank: the server makes one.
            lane: blank: the default lane.
            request_id: names this call, also when the client sends it again; blank: made here.
            append_at: `input` is only what is new, after this many items of the lane; None: it is everything.
            retry, on_busy, events: modes of the contract.
            max_duration_s: limit that the server keeps; None: its own.
            timeout_s: deadline of the call with all its sends; None: none.
            request_json: further fields of the request body, merged beneath the options.
            turn_metadata: the turn's metadata for the provider.
            options: overrides of the session's defaults.
        """
        request = turn_service_pb2.StreamTurnRequest(
            session_id=self.session_id,
            lane=lane,
            turn_id=turn_id,
            request_id=request_id or str(uuid.uuid4()),
            session_config=self.config,
            input=items.items(input),
            expected_history_position=append_at,
            input_mode=turn_service_pb2.InputMode.Value(f"INPUT_MODE_{'FULL' if append_at is None else 'APPEND'}"),
            retry=turn_service_pb2.RetryMode.Value(f"RETRY_MODE_{retry.upper()}"),
            on_busy=turn_service_pb2.BusyMode.Value(f"BUSY_MODE_{on_busy.upper()}"),
            events=turn_service_pb2.EventMode.Value(f"EVENT_MODE_{events.upper()}"),
            request_json=items.json_bytes(request_json),
            turn_metadata_json=items.json_bytes(turn_metadata),
        )
        if options:
            items.set_options(request.options, options)
        if max_duration_s is not None:
            request.max_duration.FromNanoseconds(round(max_duration_s * 1e9))
        return Turn(self._connection, request, timeout_s=timeout_s)

    async def get(self) -> session_service_pb2.Session:
        """The session's state."""
        request = session_service_pb2.GetSessionRequest(session_id=self.session_id)
        response = await self._connection.unary(
            self._connection.sessions.GetSession, request, session_id=self.session_id
        )
        return response.session

    def watch(self) -> "Watch":
        """The session's state now and after each change; enter it to begin."""
        return Watch(self._connection, self.session_id)

    async def close(self) -> session_service_pb2.Session:
        """Closes the session: its running calls end with SessionClosedError. Returns its last state."""
        request = session_service_pb2.CloseSessionRequest(session_id=self.session_id)
        response = await self._connection.unary(
            self._connection.sessions.CloseSession, request, session_id=self.session_id
        )
        return response.session

    async def preconnect(self, *, wait: bool = False) -> session_service_pb2.Slot:
        """Starts a warm-up if the slot is idle; with `wait`, returns when its handshake has ended, well or not."""
        request = session_service_pb2.PreconnectRequest(session_id=self.session_id, wait=wait)
        response = await self._connection.unary(
            self._connection.sessions.Preconnect, request, session_id=self.session_id
        )
        return response.slot

    async def advance_window(self, *, expected_generation: int | None = None) -> int:
        """Starts a new window and returns its generation.

        Args:
            expected_generation: the generation that the caller knows; None: whichever it is, and the call is then
                never sent twice.
        """
        request = session_service_pb2.AdvanceWindowRequest(
            session_id=self.session_id, expected_generation=expected_generation
        )
        response = await self._connection.unary(
            self._connection.sessions.AdvanceWindow,
            request,
            session_id=self.session_id,
            is_repeatable=expected_generation is not None,
        )
        return response.window_generation

    async def cancel_turn(self, *, request_id: str = "", turn_id: str = "") -> list[str]:
        """Cancels running calls by request or turn; returns the request ids of those that end now.

        Raises:
            TurnNotFoundError: none matches.
        """
        request = turn_service_pb2.CancelTurnRequest(session_id=self.session_id, request_id=request_id, turn_id=turn_id)
        response = await self._connection.unary(self._connection.turns.CancelTurn, request, session_id=self.session_id)
        return list(response.request_ids)

    async def list_inferences(
        self, *, turn_id: str = "", upstream_id: str = "", page_size: int = 0
    ) -> AsyncIterator[trace_service_pb2.Inference]:
        """The session's recent attempts upstream, newest first, over all pages.

        Args:
            turn_id: only this turn's. upstream_id: only of this response or upstream request. Blank: all.
            page_size: 0: the server's.
        """
        request = trace_service_pb2.ListInferencesRequest(
            session_id=self.session_id, page_size=page_size, turn_id=turn_id, upstream_id=upstream_id
        )
        while True:
            page = await self._connection.unary(
                self._connection.traces.ListInferences, request, session_id=self.session_id
            )
            for inference in page.inferences:
                yield inference
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class Watch:
    """States of a session, made by `Session.watch`. Enter it to begin; leaving ends it. Ends after the state CLOSED."""

    def __init__(self, connection: Connection, session_id: str) -> None:
        self._connection = connection
        self._session_id = session_id
        self._call: _WatchCall | None = None

    async def __aenter__(self) -> "Watch":
        """Sends the call. What fails is raised by the first read."""
        request = session_service_pb2.WatchSessionRequest(session_id=self._session_id)
        metadata = await self._connection.metadata(self._session_id)
        self._call = self._connection.sessions.WatchSession(request, metadata=metadata)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._call is not None:
            self._call.cancel()

    def __aiter__(self) -> "Watch":
        return self

    async def __anext__(self) -> session_service_pb2.Session:
        """The next state.

        Raises:
            WarmlineError: the call failed. A call that is lost is not made again: a new watch starts with the state.

        Cancel: ends the watch.
        """
        if self._call is None:
            raise RuntimeError("read watch: it was not entered; write `async with session.watch() as states:`")
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        if isinstance(message, session_service_pb2.WatchSessionResponse):
            return message.session
        raise StopAsyncIteration
