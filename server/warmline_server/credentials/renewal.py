"""Renewing a credential: once at a time for all who want it, within a limit, and not at once again after a failure."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from warmline_server.clock import Clock, TimeLimit
from warmline_server.core.errors import CredentialFailure, Heal, Reason, UpstreamFailure

_log = logging.getLogger(__name__)

# The wait after a failed renewal doubles from the first to the last of these.
FIRST_BACKOFF_S = 1.0
MAX_BACKOFF_S = 30.0


def permanent(text: str) -> UpstreamFailure:
    """A credential that no repeat can bring; C-067."""
    return CredentialFailure(Reason.UPSTREAM_AUTH, text, heal=Heal.NEVER)


def transient(text: str) -> UpstreamFailure:
    """A credential that could not be had now; C-067."""
    return CredentialFailure(Reason.UPSTREAM_UNREACHABLE, text, heal=Heal.RESEND)


class Renewal:
    """One renewal at a time, in a task of its own that no caller's cancel ends."""

    def __init__(self, work: Callable[[], Awaitable[None]], *, clock: Clock, limit_s: float) -> None:
        """Args: `work` renews, or raises UpstreamFailure; it is cancelled after `limit_s`."""
        self._work = work
        self._clock = clock
        self._limit_s = limit_s
        self._task: asyncio.Task[UpstreamFailure | None] | None = None
        self._failed: UpstreamFailure | None = None
        self._failures = 0
        self._again_at_s = 0.0

    @property
    def is_running(self) -> bool:
        """Whether a renewal is under way."""
        return self._task is not None

    async def run(self) -> None:
        """Joins the renewal under way, or starts one.

        Raises: UpstreamFailure of the renewal; soon after a failure, that failure again. Cancel: safe; it goes on.
        """
        if self._task is None and self._failed is not None and self._clock.now_s() < self._again_at_s:
            raise self._anew(self._failed)
        failed = await asyncio.shield(self._task or self._start())
        if failed is not None:
            raise self._anew(failed)

    def start_nowait(self) -> None:
        """Starts a renewal for nobody, unless one is under way or one failed just now."""
        if self._task is None and self._clock.now_s() >= self._again_at_s:
            self._start()

    async def close(self) -> None:
        """Ends what is under way. Idempotent."""
        task = self._task
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _start(self) -> "asyncio.Task[UpstreamFailure | None]":
        self._task = asyncio.create_task(self._renew(), name="renew a credential")
        return self._task

    async def _renew(self) -> UpstreamFailure | None:
        try:
            async with TimeLimit(self._clock, self._clock.now_s() + self._limit_s):
                await self._work()
        except TimeoutError:
            self._note(transient(f"renew the credential: not done within {self._limit_s:.1f} s"))
        except UpstreamFailure as failure:
            self._note(failure)
        else:
            self._failed, self._failures, self._again_at_s = None, 0, 0.0
        finally:
            self._task = None
        return self._failed

    def _note(self, failure: UpstreamFailure) -> None:
        wait_s = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0**self._failures)
        self._failed, self._failures, self._again_at_s = failure, self._failures + 1, self._clock.now_s() + wait_s
        _log.warning("credential not renewed", extra={"why": failure.text, "again_in_s": wait_s})

    def _anew(self, failed: UpstreamFailure) -> UpstreamFailure:
        """The failure for one of those who meet it; a resend before the wait is over would meet it again."""
        delay_s = max(0.0, self._again_at_s - self._clock.now_s()) if failed.heal is Heal.RESEND else None
        return CredentialFailure(failed.reason, failed.text, heal=failed.heal, delay_s=delay_s)
