"""The client: one connection to one server."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from warmline import items
from warmline.connection import Connection, ConnectionSettings, Tls, Token
from warmline.items import Options
from warmline.retry import CallRetry
from warmline.session import Session, Start
from warmline.v1 import session_service_pb2, types_pb2

if TYPE_CHECKING:
    from warmline.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from warmline.v1.trace_service_pb2_grpc import TraceServiceAsyncStub
    from warmline.v1.turn_service_pb2_grpc import TurnServiceAsyncStub

# Longest message both ways. A choice: a conversation with several images inline; the server has its own limit.
DEFAULT_MAX_MESSAGE_BYTES = 64 * 1024 * 1024


class Client:
    """A connection to a Warmline server. Enter it to open it; leaving closes it and cancels what runs on it."""

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        tls: bool | Tls = False,
        token: Token | None = None,
        allow_plaintext_token: bool = False,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        keepalive_s: float = 30.0,
        keepalive_timeout_s: float = 10.0,
        retry: CallRetry | None = None,
        unary_timeout_s: float | None = 30.0,
        channel_options: Sequence[tuple[str, str | int]] = (),
    ) -> None:
        """Settles what the connection will be; nothing is opened yet.

        Args:
            target: host and port, or any name that gRPC resolves.
            tls: True: with gRPC's roots; a `Tls`: with its certificates (mTLS with a certificate and key).
            token: sent as bearer; a function, sync or async, is asked before each call.
            allow_plaintext_token: send a token beyond this machine without TLS, where something else encrypts.
            max_message_bytes: longest message, both ways.
            keepalive_s: a ping after this long without traffic while a call runs; keepalive_timeout_s: without an
                answer for that long, the connection counts as lost. The server must allow the interval.
            retry: the client's own resends; None: the defaults of `CallRetry`.
            unary_timeout_s: deadline of every call but turns and watches; None: none.
            channel_options: gRPC's own, over those made here.

        Raises:
            ValueError: a token would go beyond this machine in plain text.
        """
        self._settings = ConnectionSettings(
            target=target,
            tls=tls,
            token=token,
            allow_plaintext_token=allow_plaintext_token,
            max_message_bytes=max_message_bytes,
            keepalive_s=keepalive_s,
            keepalive_timeout_s=keepalive_timeout_s,
            retry=retry or CallRetry(),
            unary_timeout_s=unary_timeout_s,
            channel_options=channel_options,
        )
        self._settings.check()
        self._open: Connection | None = None

    async def __aenter__(self) -> "Client":
        """Opens the client; the server is dialled by the first call.

        Raises:
            RuntimeError: it is open already.
        """
        if self._open is not None:
            raise RuntimeError("open client: it is open already")
        self._open = Connection(self._settings)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._open = self._connection, None
        await connection.close()

    @property
    def sessions(self) -> "SessionServiceAsyncStub":
        """The generated stub, as it is."""
        return self._connection.sessions

    @property
    def turns(self) -> "TurnServiceAsyncStub":
        """The generated stub, as it is; a streamed call must be cancelled by whoever made it."""
        return self._connection.turns

    @property
    def traces(self) -> "TraceServiceAsyncStub":
        """The generated stub, as it is."""
        return self._connection.traces

    def session(
        self,
        session_id: str,
        config: types_pb2.SessionConfig | None = None,
        *,
        upstream: str = "",
        start: Start = "now",
        close_on_exit: bool = False,
        **defaults: Unpack[Options],
    ) -> Session:
        """Makes a session; entering it creates it at the server, if it is not there.

        Args:
            session_id: 1 to 64 of `[A-Za-z0-9._-]`.
            config: what the session is; None: all defaults. `upstream` and `defaults` are written over it.
            start: "now": entering begins the warm-up; "lazy": the first turn creates the session; "attach": the
                session is another's, no config is sent, and a missing one is SessionNotFoundError.
            close_on_exit: leaving closes the session at the server; else it stays warm until it expires.
            defaults: options of every turn of the session.

        Raises:
            ValueError: "attach" with a config.
        """
        if start == "attach":
            if config is not None or upstream or defaults:
                raise ValueError("attach session: it has its config already; give none")
            return Session(self._connection, session_id, None, start=start, close_on_exit=close_on_exit)
        merged = types_pb2.SessionConfig()
        if config is not None:
            merged.CopyFrom(config)
        if upstream:
            merged.upstream = upstream
        if defaults:
            items.set_options(merged.request_defaults, defaults)
        return Session(self._connection, session_id, merged, start=start, close_on_exit=close_on_exit)

    async def list_sessions(
        self, *, labels: Mapping[str, str] | None = None, page_size: int = 0
    ) -> AsyncIterator[session_service_pb2.Session]:
        """The caller's sessions, by id, over all pages.

        Args:
            labels: only sessions that have all of these. page_size: 0: the server's.
        """
        request = session_service_pb2.ListSessionsRequest(page_size=page_size, labels=labels)
        while True:
            page = await self._connection.unary(self._connection.sessions.ListSessions, request)
            for session in page.sessions:
                yield session
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    @property
    def _connection(self) -> Connection:
        if self._open is None:
            raise RuntimeError("use client: it is not open; write `async with warmline.Client(…) as client:`")
        return self._open
