"""What a file holds, as it is now."""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from warmline_server.watched_file import WatchedFile

_log = logging.getLogger(__name__)

T = TypeVar("T")


class BadFile(Exception):
    """A file cannot be used. The text names it and says what is wrong with it, and quotes nothing."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}")
        self.why = why


class Unreadable(Exception):
    """A content cannot be used. The text says why, and quotes nothing."""


class Reloaded(Generic[T]):
    """A parsed file, read again when it changed. While a new content cannot be used the former one is."""

    def __init__(self, path: str, parse: Callable[[bytes], T]) -> None:
        """Args: `parse` raises Unreadable. Raises: BadFile: a server starts with files that can be used."""
        self._path = path
        self._file = WatchedFile(path)
        self._parse = parse
        self._why_bad = ""
        content = self._read(force=True)
        assert content is not None, "it was forced"
        self._current = content

    def current(self) -> T:
        """What the file says now, or said last."""
        try:
            found = self._read(force=False)
        except BadFile as error:
            if error.why != self._why_bad:
                _log.error("a file cannot be used; what it held before is kept", extra={"why": str(error)})
            self._why_bad = error.why
        else:
            if found is not None:
                self._current = found
                self._why_bad = ""
                _log.info("file read again", extra={"path": self._path})
        return self._current

    def _read(self, *, force: bool) -> T | None:
        try:
            content = self._file.read_if_changed(force=force)
            return None if content is None else self._parse(content)
        except OSError as error:
            why = error.strerror or type(error).__name__
        except Unreadable as error:
            why = str(error)
        raise BadFile(self._path, why)
