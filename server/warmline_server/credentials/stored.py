"""Credentials that somebody else keeps: a variable, a file, a program's output."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Mapping, Sequence

from warmline_server.clock import Clock
from warmline_server.core.errors import UpstreamFailure
from warmline_server.credentials import token as tokens
from warmline_server.credentials.renewal import permanent, transient
from warmline_server.credentials.source import CredentialSource, Step
from warmline_server.credentials.token import Malformed, Token
from warmline_server.settings import Credential
from warmline_server.watched_file import WatchedFile

_log = logging.getLogger(__name__)


class EnvironmentCredential(CredentialSource):
    """A variable of this process, which nothing can change."""

    def __init__(self, settings: Credential, clock: Clock, environ: Mapping[str, str]) -> None:
        super().__init__(settings, clock)
        try:
            self._token = tokens.from_text(os.fsencode(environ.get(settings.env, "")))
        except Malformed as error:
            self._why_not = str(error)

    async def _current(self) -> Token:
        if self._token is None:
            raise permanent(f"read the credential from the variable {self.settings.env}: {self._why_not}")
        return self._token


class FileCredential(CredentialSource):
    """A file, read again when it changed. While a new content cannot be used, the former one is."""

    def __init__(self, settings: Credential, clock: Clock) -> None:
        super().__init__(settings, clock)
        self._file = WatchedFile(settings.file)
        self._why_bad = ""

    async def _current(self) -> Token:
        self._reload()
        assert self._token is not None, "it was loaded, or that raised"
        return self._token

    def _steps(self) -> Sequence[Step]:
        return [("reload", self._reload_step)]

    def _reload(self, *, force: bool = False) -> bool:
        is_new = False
        try:
            content = self._file.read_if_changed(force=force)
            if content is not None:
                is_new = self._hold(self._parsed(content))
                self._why_bad = ""
        except OSError as error:
            self._note_bad(error.strerror or type(error).__name__)
        except Malformed as error:
            self._note_bad(str(error))
        if self._token is None:
            raise permanent(f"read the credential from its file: {self._why_bad}")
        return is_new

    def _parsed(self, content: bytes) -> Token:
        return tokens.from_text(content)

    def _note_bad(self, why: str) -> None:
        """The path is for the log; callers are told what is wrong."""
        if why != self._why_bad:
            _log.warning("credential file cannot be used", extra={"path": self.settings.file, "why": why})
        self._why_bad = why


class CommandCredential(CredentialSource):
    """A program's output, used for a while, and until it is refused."""

    _got_at_s = 0.0

    async def _current(self) -> Token:
        if self._token is None:
            await self._renewal.run()
        elif self.settings.command_ttl_s and self.clock.now_s() - self._got_at_s >= self.settings.command_ttl_s:
            # The former output is used when there is no new one; the upstream decides whether it is still good.
            with contextlib.suppress(UpstreamFailure):
                await self._renewal.run()
        assert self._token is not None, "the command succeeded, or that raised"
        return self._token

    def _steps(self) -> Sequence[Step]:
        return [("reload", self._reload_step), ("command", self._renew_step)]

    def _renewal_limit_s(self) -> float:
        return self.settings.command_timeout_s

    async def _renew(self) -> None:
        output = await _run(self.settings.command)
        try:
            self._hold(tokens.from_text(output))
        except Malformed as error:
            raise transient(f"run the credential's command: of its output, {error}") from None
        self._got_at_s = self.clock.now_s()


async def _run(command: Sequence[str]) -> bytes:
    """A command's output, of which nothing is ever logged. Raises: UpstreamFailure. Cancel: it is killed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise permanent(f"run the credential's command: {error.strerror or type(error).__name__}") from error
    assert process.stdout is not None, "a pipe was asked for"
    try:
        output = await process.stdout.readexactly(tokens.MAX_OUTPUT_BYTES)
    except asyncio.IncompleteReadError as error:
        output = error.partial
        status = await process.wait()
    else:
        raise transient(f"run the credential's command: it printed {tokens.MAX_OUTPUT_BYTES} bytes and more")
    finally:
        if process.returncode is None:
            # The whole group, since the program may be a shell that waits for another.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if status != 0:
        raise transient(f"run the credential's command: it ended with status {status}")
    return output
