"""The way of all log lines out of the process: JSON for machines, text for people.

Lines are written by a thread, so a reader of our output that stalls does not stall turns. No content gets in:
tracebacks are printed without the texts of foreign exceptions, and libraries that log what they send are kept above the
level at which they do.
"""

import logging
import queue
import sys
import threading
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import structlog

from warmline_server.core.errors import WarmlineError

# At DEBUG, and httpx at INFO, these log URLs, headers or frames.
QUIET = ("websockets", "httpx", "httpcore", "hpack", "grpc")
# Lines that wait for the writing thread; beyond that the newest are dropped and counted.
MAX_WAITING_LINES = 10_000
# How long the writing thread lets lines gather.
PAUSE_S = 0.05
# A reader that stalls may not keep the process from ending.
CLOSE_S = 1.0

# What every record has; the rest are the fields of its line.
_NO_FIELDS = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})


class LogPipe:
    """The root logger's way out. `close` writes what waits and gives the root logger back."""

    def __init__(self, formatter: logging.Formatter, level: int, stream: TextIO) -> None:
        self._waiting = _Waiting()
        self._formatter = formatter
        self._stream = stream
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="log writer", daemon=True)
        self._root = logging.getLogger()
        self._former_level = self._root.level
        self._root.addHandler(self._waiting)
        self._root.setLevel(level)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost because the reader of our output stalled."""
        return self._waiting.dropped

    def close(self) -> None:
        """Writes what waits, for at most CLOSE_S."""
        self._root.removeHandler(self._waiting)
        self._root.setLevel(self._former_level)
        self._closing.set()
        self._waiting.lines.put(None)
        self._thread.join(CLOSE_S)

    def _write(self) -> None:
        """Waits for a line, then a moment for those that follow: to be woken by each would cost more than it says."""
        lines, ended = self._waiting.lines, False
        while not ended:
            batch = [lines.get()]
            self._closing.wait(PAUSE_S)
            while not lines.empty():
                batch.append(lines.get())
            ended = None in batch
            self._print([record for record in batch if record is not None])

    def _print(self, records: Sequence[logging.LogRecord]) -> None:
        """What fails is told where it can be, as logging's own handlers do, and costs no other line."""
        try:
            self._stream.write("".join(map(self._text, records)))
            self._stream.flush()
        except Exception:  # noqa: BLE001 - the output is broken, and may be whole again
            self._waiting.handleError(records[-1])

    def _text(self, record: logging.LogRecord) -> str:
        try:
            return f"{self._formatter.format(record)}\n"
        except Exception:  # noqa: BLE001 - a field that nobody can spell
            self._waiting.handleError(record)
            return ""


class _Waiting(logging.Handler):
    """Keeps records for the writing thread."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self.lines.qsize() < MAX_WAITING_LINES:
            self.lines.put(record)
        else:
            self.dropped += 1


def configure(log_format: str, level: str, *, stream: TextIO | None = None) -> LogPipe:
    """Sends all logs of the process through one pipe.

    Args: `log_format` "json", "text", or "auto": text where a person watches; `level` a name of the standard library's;
    `stream` None: standard error.
    """
    out = stream if stream is not None else sys.stderr
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    text = log_format == "text" or (log_format == "auto" and out.isatty())
    formatter = _Text(colors=out.isatty()) if text else _Json()
    return LogPipe(formatter, logging.getLevelNamesMapping()[level.upper()], out)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        # With a blank after each colon, as people search for it.
        return msgspec.json.format(msgspec.json.encode(_line(record), enc_hook=str), indent=0).decode()


class _Text(logging.Formatter):
    def __init__(self, *, colors: bool) -> None:
        super().__init__()
        self._render = structlog.dev.ConsoleRenderer(colors=colors)

    def format(self, record: logging.LogRecord) -> str:
        return self._render(None, "", _line(record))


def _line(record: logging.LogRecord) -> dict[str, Any]:
    text = record.getMessage()
    if record.name == "asyncio":
        # It appends the repr of a failed task, and with it the text of whatever it raised.
        text = text.partition("\n")[0]
    line = {"event": text, "level": record.levelname.lower(), "logger": record.name}
    line |= {name: value for name, value in vars(record).items() if name not in _NO_FIELDS}
    line["timestamp"] = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
    error = record.exc_info[1] if record.exc_info else None
    if error is not None:
        line["exception"] = format_exception(error)
    return line


def format_exception(error: BaseException) -> str:
    """A traceback with the classes of all exceptions, and the texts of our own alone: others may quote content."""
    parts = []
    cause: BaseException | None = error
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = f": {cause}" if isinstance(cause, WarmlineError) else ""
        name = f"{type(cause).__module__}.{type(cause).__qualname__}"
        parts.append("".join(traceback.format_tb(cause.__traceback__)) + name + text)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\ncaused by:\n".join(parts)
