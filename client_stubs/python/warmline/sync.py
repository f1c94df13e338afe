"""The client without asyncio: the same classes, each method run on one background event loop.

For programs that have no event loop; one that has uses `warmline` itself. Nothing is implemented here: methods are
taken from the asyncio classes, with their signatures and docstrings. The generated stubs are not offered; they belong
to the background loop.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import warmline
from warmline.v1 import turn_service_pb2, types_pb2

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Inner = TypeVar("_Inner")
_Context = TypeVar("_Context", bound=AbstractAsyncContextManager[Any])
_Item = TypeVar("_Item")
_Made = TypeVar("_Made", bound="_Twin[Any]")
_Entered = TypeVar("_Entered", bound="_ContextTwin[Any]")


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        """Starts the thread; it does not keep the process alive."""
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._live()), name="warmline", daemon=True)
        self._thread.start()
        self._is_up.wait()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_closing = asyncio.Event()
        self._is_up.set()
        await self._is_closing.wait()

    def run(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Runs a coroutine and waits for it; an interrupt of the wait cancels it.

        Raises:
            RuntimeError: called on the loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("wait for the client: this is its own thread; use the asyncio client here")
        # The caller's context variables, and so its current span, come along.
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancels what runs, ends the loop and its thread."""
        self._loop.call_soon_threadsafe(self._is_closing.set)
        self._thread.join()


class _Shared:
    """The process's one loop thread and how many hold it: gRPC wants a single loop (grpc/grpc#25364)."""

    lock = threading.Lock()
    holders = 0
    thread: LoopThread | None = None


@contextlib.contextmanager
def shared_loop() -> Iterator[LoopThread]:
    """The loop that all clients of this module share; it lives while anyone holds it."""
    with _Shared.lock:
        thread = _Shared.thread = _Shared.thread or LoopThread()
        _Shared.holders += 1
    try:
        yield thread
    finally:
        with _Shared.lock:
            _Shared.holders -= 1
            if _Shared.holders == 0:
                _Shared.thread = None
                thread.close()


class _Twin(Generic[_Inner]):
    """Runs the methods of an asyncio object on a loop thread."""

    def __init__(self, inner: _Inner, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop


class _ContextTwin(_Twin[_Context]):
    """A twin to enter and leave."""

    def __enter__(self: _Entered) -> _Entered:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.run(self._inner.__aexit__(kind, error, trace))


def _waiting(
    method: Callable[Concatenate[_Inner, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[_Twin[_Inner], _P], _R]:
    """A method that waits for the coroutine method."""

    @functools.wraps(method)
    def run(twin: _Twin[_Inner], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return twin._loop.run(method(twin._inner, *args, **kwargs))

    return run


def _plain(method: Callable[Concatenate[_Inner, _P], _R]) -> Callable[Concatenate[_Twin[_Inner], _P], _R]:
    """A method that runs the plain method on the loop, because what it touches lives there."""

    @functools.wraps(method)
    def run(twin: _Twin[_Inner], /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        async def call() -> _R:
            return method(twin._inner, *args, **kwargs)

        return twin._loop.run(call())

    return run


def _making(
    method: Callable[Concatenate[_Inner, _P], _R], twin_of: Callable[[_R, LoopThread], _Made]
) -> Callable[Concatenate[_Twin[_Inner], _P], _Made]:
    """A method that returns the twin of what the plain method makes."""

    @functools.wraps(method)
    def make(twin: _Twin[_Inner], /, *args: _P.args, **kwargs: _P.kwargs) -> _Made:
        return twin_of(method(twin._inner, *args, **kwargs), twin._loop)

    return make


def _iterating(
    method: Callable[Concatenate[_Inner, _P], AsyncIterator[_Item]],
) -> Callable[Concatenate[_Twin[_Inner], _P], Iterator[_Item]]:
    """A method that iterates what the asynchronous iterator gives."""

    @functools.wraps(method)
    def iterate(twin: _Twin[_Inner], /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_Item]:
        async def take() -> _Item:
            return await anext(items)

        items = method(twin._inner, *args, **kwargs)
        while True:
            try:
                item = twin._loop.run(take())
            except StopAsyncIteration:
                return
            yield item

    return iterate


def _like(
    method: Callable[Concatenate[Any, _P], _R],
) -> Callable[[Callable[..., _R]], Callable[Concatenate[Any, _P], _R]]:
    """Gives a function the signature of another."""
    return functools.wraps(method)


class Turn(_ContextTwin[warmline.Turn]):
    """See `warmline.Turn`."""

    __iter__ = _iterating(warmline.Turn.__aiter__)
    text = _iterating(warmline.Turn.text)
    result = _waiting(warmline.Turn.result)
    snapshot = _plain(warmline.Turn.snapshot)
    cancel = _plain(warmline.Turn.cancel)

    @property
    def request(self) -> turn_service_pb2.StreamTurnRequest:
        """See `warmline.Turn.request`."""
        return self._inner.request

    @property
    def turn_id(self) -> str:
        """See `warmline.Turn.turn_id`."""
        return self._inner.turn_id

    @property
    def request_id(self) -> str:
        """See `warmline.Turn.request_id`."""
        return self._inner.request_id

    @property
    def unknown_events(self) -> int:
        """See `warmline.Turn.unknown_events`."""
        return self._inner.unknown_events


class Watch(_ContextTwin[warmline.Watch]):
    """See `warmline.Watch`."""

    __iter__ = _iterating(warmline.Watch.__aiter__)


class Session(_ContextTwin[warmline.Session]):
    """See `warmline.Session`."""

    turn = _making(warmline.Session.turn, Turn)
    watch = _making(warmline.Session.watch, Watch)
    get = _waiting(warmline.Session.get)
    close = _waiting(warmline.Session.close)
    preconnect = _waiting(warmline.Session.preconnect)
    advance_window = _waiting(warmline.Session.advance_window)
    cancel_turn = _waiting(warmline.Session.cancel_turn)
    list_inferences = _iterating(warmline.Session.list_inferences)

    @property
    def session_id(self) -> str:
        """See `warmline.Session.session_id`."""
        return self._inner.session_id

    @property
    def config(self) -> types_pb2.SessionConfig | None:
        """See `warmline.Session.config`."""
        return self._inner.config


class Client(_ContextTwin[warmline.Client]):
    """See `warmline.Client`. Holds the shared loop while it is open."""

    @_like(warmline.Client.__init__)
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._inner = warmline.Client(*args, **kwargs)
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "Client":
        with contextlib.ExitStack() as held:
            self._loop = held.enter_context(shared_loop())
            super().__enter__()
            self._held = held.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._held:
            super().__exit__(kind, error, trace)

    session = _making(warmline.Client.session, Session)
    list_sessions = _iterating(warmline.Client.list_sessions)
