"""The disk side of bundles: a bundle's directory, and the thread that writes all of them."""

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from warmline_server.core.records import AttemptRecord, SessionRecord
from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.format import Status

_log = logging.getLogger(__name__)

# Warm-ups whose response an inference may still continue; a session has one socket per lane.
REMEMBERED_WARM_UPS = 64
CLOSE_S = 2.0

Payloads = dict[fmt.PayloadType, bytes]
Refs = dict[fmt.PayloadType, fmt.PayloadRef]
Build = Callable[["Files", Refs], fmt.Event]


def now_ms() -> int:
    """Wall time, as the events have it."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Write:
    """One event for the thread. `build` makes it once its payloads are on disk and have their references."""

    unix_ms: int
    build: Build
    payloads: Payloads
    thread_id: str | None


@dataclass
class TurnState:
    """An open turn. `key` names it in the bundle: a turn id that comes back after another turn gets a number."""

    key: str
    running_calls: int = 0
    status: Status = Status.COMPLETED


@dataclass
class LaneState:
    """A lane's open turns by turn id; the last one that a call named is the newest."""

    thread_id: str
    turns: dict[str, TurnState] = field(default_factory=dict)
    newest: str = ""


class Bundle:
    """What the loop knows of a bundle; `files` belongs to the thread.

    `closing`: its session is closed, and `running_calls` have yet to end. `given_up`: takes nothing more. `broken`:
    writing failed, so that what still waits is passed over too.
    """

    def __init__(self, root: Path, session: SessionRecord, unix_ms: int) -> None:
        trace_id = str(uuid.uuid4())
        self.manifest = fmt.Manifest(fmt.SCHEMA_VERSION, trace_id, session.session_id, session.conversation_id, unix_ms)
        self.files = Files(root / f"{session.session_id}-{trace_id[:8]}", self.manifest)
        self.lanes: dict[str, LaneState] = {}
        self.running_calls = 0
        self.closing = False
        self.given_up = False
        self.broken = False
        self._turn_keys: dict[str, int] = {}

    def new_turn_key(self, turn_id: str) -> str:
        """A name for a turn that no other turn of the bundle has."""
        seen = self._turn_keys[turn_id] = self._turn_keys.get(turn_id, 0) + 1
        return turn_id if seen == 1 else f"{turn_id}#{seen}"

    def truncate(self) -> None:
        """The last event of a bundle that takes nothing more. In the thread."""
        event = fmt.Other(fmt.Truncated("the queue to the disk was full"))
        self.files.write(Write(now_ms(), lambda _files, _refs: event, {}, None))


class Files:
    """A bundle's directory. Used by the writing thread alone."""

    def __init__(self, path: Path, manifest: fmt.Manifest) -> None:
        self._path = path
        self._manifest = manifest
        self._seq = 0
        self._payloads = 0
        self._opened = False
        self._traced: set[str] = set()
        self._warm_ups: dict[str, list[msgspec.Raw]] = {}

    def write(self, write: Write) -> None:
        """Payloads first, so that no event names a file that is not there."""
        self._open()
        refs = {kind: self.add_payload(kind, payload) for kind, payload in write.payloads.items()}
        event = write.build(self, refs)
        self._seq += 1
        envelope = fmt.Envelope(
            fmt.SCHEMA_VERSION,
            self._seq,
            write.unix_ms,
            self._manifest.rollout_id,
            event,
            write.thread_id,
            getattr(event, "codex_turn_id", None),
        )
        # Opened for each line: ten thousand sessions may not hold ten thousand descriptors.
        with (self._path / fmt.EVENT_LOG).open("ab") as log:
            log.write(msgspec.json.encode(envelope) + b"\n")

    def add_payload(self, kind: fmt.PayloadType, payload: bytes) -> fmt.PayloadRef:
        """Writes a payload file. Returns: its reference."""
        self._payloads += 1
        name = f"{fmt.PAYLOADS}/{self._payloads}.json"
        (self._path / name).write_bytes(msgspec.json.format(payload, indent=2))
        return fmt.PayloadRef(f"raw_payload:{self._payloads}", fmt.PayloadKind(kind.value), name)

    def remember_warm_up(self, attempt: AttemptRecord) -> None:
        """A later request may continue it, and its items stand in no traced request."""
        request = msgspec.json.decode(attempt.request, type=_Input)
        self._warm_ups[attempt.response_id] = request.input + [msgspec.Raw(item) for item in attempt.output_items]
        while len(self._warm_ups) > REMEMBERED_WARM_UPS:
            del self._warm_ups[next(iter(self._warm_ups))]

    def note_response(self, response_id: str) -> None:
        """An inference of this bundle made the response, so a request that continues it can be replayed."""
        self._traced.add(response_id)

    def input_mode(self, previous_response_id: str) -> fmt.InputMode | None:
        """How a request that names `previous_response_id` (blank: none) is to be replayed; None: unknown parent."""
        if not previous_response_id:
            return fmt.FullSnapshot()
        if previous_response_id in self._traced:
            return fmt.Incremental(previous_response_id)
        prefix = self._warm_ups.get(previous_response_id)
        if prefix is None:
            return None
        if not prefix:
            return fmt.FullSnapshot()
        payload = msgspec.json.encode({"input": prefix})
        return fmt.IncrementalWithPrefix(previous_response_id, self.add_payload(fmt.PayloadType.PREFIX, payload))

    def _open(self) -> None:
        if not self._opened:
            (self._path / fmt.PAYLOADS).mkdir(parents=True, mode=0o700)
            manifest = msgspec.json.format(msgspec.json.encode(self._manifest), indent=2)
            (self._path / fmt.MANIFEST).write_bytes(manifest)
            self._opened = True


class _Input(msgspec.Struct):
    input: list[msgspec.Raw] = field(default_factory=list)


class Disk:
    """The writing thread and its queue, which is bounded in bytes."""

    def __init__(self, max_queued_bytes: int) -> None:
        self.dropped = 0
        self._max_queued_bytes = max_queued_bytes
        self._queued_bytes = 0
        self._work: deque[tuple[int, Bundle, Callable[[], None]] | None] = deque()
        self._ready = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="bundle writer", daemon=True)
        self._thread.start()

    def do(self, size_bytes: int, bundle: Bundle, work: Callable[[], None]) -> None:
        """Queues work of a bundle; where there is no room the bundle ends here."""
        if bundle.given_up:
            self.dropped += 1
            return
        with self._ready:
            if self._queued_bytes + size_bytes > self._max_queued_bytes:
                self.dropped += 1
                bundle.given_up = True
                work, size_bytes = bundle.truncate, 0
            self._queued_bytes += size_bytes
            self._work.append((size_bytes, bundle, work))
            self._ready.notify()

    def close(self) -> None:
        with self._ready:
            self._work.append(None)
            self._ready.notify()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        while (item := self._next()) is not None:
            size_bytes, bundle, work = item
            if bundle.broken:
                self.dropped += 1
            else:
                self._try(bundle, work)
            with self._ready:
                self._queued_bytes -= size_bytes

    def _try(self, bundle: Bundle, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # noqa: BLE001 - a full disk, a broken payload: the trace ends, the service does not
            self.dropped += 1
            bundle.broken = bundle.given_up = True
            _log.exception("a trace bundle ends here", extra={"rollout_id": bundle.manifest.rollout_id})

    def _next(self) -> tuple[int, Bundle, Callable[[], None]] | None:
        with self._ready:
            while not self._work:
                self._ready.wait()
            return self._work.popleft()
