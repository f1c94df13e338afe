"""What is measured, as data."""

from collections.abc import Sequence
from typing import Protocol

from bench import figures as fig
from bench.capacity import Capacity
from bench.figures import Column, Figure, Measured
from bench.load_cell import Load
from bench.memory import Cancelled, Memory
from bench.paths import OWN, Path
from bench.rig import Rig
from bench.upstreams import Shape


class Cell(Protocol):
    """A load, or another procedure, that is measured on paths."""

    @property
    def name(self) -> str:
        """Its name on the command line."""

    @property
    def title(self) -> str:
        """Its name in tables."""

    @property
    def note(self) -> str:
        """What the figures include."""

    @property
    def group(self) -> str:
        """Cells of one group make one table; blank: a table of its own."""

    @property
    def variant(self) -> str:
        """What tells it apart in its group."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths it is measured on."""

    @property
    def has_peers(self) -> bool:
        """Whether peers are measured on it too."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """The figures' names and units."""

    def run(self, rig: Rig, paths: Sequence[Path]) -> list[Measured]:
        """Measures it."""


PACE_S = 0.02
STALL_S = 10 * PACE_S
BARE = ("direct", "relay", "warmline")
FIRST = (fig.FIRST_P50, fig.FIRST_P99, fig.LATENCY_P50, fig.LATENCY_P99, fig.GAP_P99)


def _first(
    workers: int, words: int, pace_s: float, turns: int, title: str, *more: Figure, paths: tuple[str, ...] = OWN
) -> Load:
    return Load(
        f"first-c{workers}",
        title,
        # The limit of time is for slow peers: all others are done long before.
        {"workers": workers, "turns": turns, "duration_s": 2.0, "warmup_turns": 1, "words": words}
        | {"stagger_s": words * pace_s},
        Shape(words=words, pace_s=pace_s),
        (*FIRST, *more),
        paths=paths,
        has_peers=True,
        note=f"{workers} session{'s' * (workers > 1)}, one turn after the other, of {words} deltas {pace_s * 1e3:g} ms "
        "apart.",
        short_plan={"turns": 3},
    )


def _paced(sessions: int, words: int = 60, turns: int = 1) -> Load:
    is_long = words > 60
    return Load(
        f"cpu-{sessions}{'-long' if is_long else ''}",
        "Server CPU per event, sessions at 50 events/s each",
        {"workers": sessions, "turns": turns, "warmup_turns": 1, "words": words, "stagger_s": 0.4, "stall_s": STALL_S},
        Shape(words=words, pace_s=PACE_S),
        (fig.CPU_EVENT, fig.LATENCY_P50, fig.LATENCY_P99),
        paths=(*OWN, "warmline-http") if sessions == 50 else OWN[1:],
        has_peers=sessions == 50,
        peer_repeats=3,
        note="Turns of 60 deltas, of 160 where they are long, 20 ms apart; starts spread over 0.4 s. The CPU includes "
        "start and end of the turns, which weigh more in short ones, and whatever the process does besides. Four turns "
        "each of 1,000 sessions, as long as pauses of the collector need to show. Peers three times.",
        group="cpu",
        variant=("1 session" if sessions == 1 else f"{sessions} sessions") + (", long turns" if is_long else ""),
        short_plan={"words": 20, "stagger_s": 0.1},
    )


def _first_turn(name: str, variant: str, **plan: object) -> Load:
    return Load(
        f"turn-{name}",
        "First event of a turn, handshake of 150 ms",
        {"workers": 1, "turns": 12, "words": 4, "fresh_session": True, **plan},
        Shape(words=4),
        (fig.FIRST_P50,),
        paths=("warmline",),
        note="A new session for each turn; making it is not part of the turn. Cold: nothing is opened ahead. Warmed: "
        "the slot is READY. Open: the session's second turn.",
        group="first-turn",
        variant=variant,
        handshake_delay_s=0.15,
        short_plan={"turns": 2},
    )


def _history(items: int, conversation: str) -> Load:
    plan = {"workers": 4, "turns": 25, "warmup_turns": 2, "words": 16, "history_items": items, "item_bytes": 200}
    return Load(
        f"history-{items}-{conversation}",
        "Cost per turn as the history grows",
        {**plan, "conversation": conversation},
        Shape(words=16),
        (fig.CPU_TURN, fig.TURN_P50, fig.UPSTREAM_KIB),
        paths=("relay", "warmline") if conversation == "grow" else ("warmline",),
        note="Turns of 16 deltas on 4 sessions; items of 200 bytes. FULL: the caller sends the whole conversation, "
        "which grows by two items a turn. APPEND: only what is new. The relay passes the same conversation on, whole "
        "and of constant length. The first turns, which send everything, are not counted.",
        group="history",
        variant=f"{items} items, {'FULL' if conversation == 'grow' else 'APPEND'}",
        short_plan={"turns": 3},
    )


def _sessions(sessions: int) -> Load:
    each = max(1, sessions // 8)
    return Load(
        f"sessions-{sessions}",
        "Cost per turn as idle sessions grow",
        {"workers": min(8, sessions), "sessions": each, "turns": 125, "warmup_turns": each, "words": 16},
        Shape(words=16),
        (fig.CPU_TURN, fig.TURN_P50),
        paths=("warmline",),
        note="8 calls at a time go round all sessions, whose sockets stay open; turns of 16 deltas.",
        group="sessions",
        variant=f"{each * min(8, sessions)} sessions",
        short_plan={"turns": 3},
    )


def _size(event_bytes: int) -> Load:
    return Load(
        f"size-{event_bytes}",
        "Cost per event as events grow",
        {"workers": 50, "turns": 1, "warmup_turns": 1, "words": 60, "stagger_s": 0.3},
        Shape(words=60, pace_s=PACE_S, event_bytes=event_bytes),
        (fig.CPU_EVENT, fig.LATENCY_P50),
        paths=("relay", "warmline"),
        note="50 sessions at 50 events/s; the text of a delta is so long, its frame about 190 bytes longer.",
        group="size",
        variant=f"{event_bytes} bytes",
        short_plan={"words": 10, "stagger_s": 0.1},
    )


def _tool_loop(instructions_bytes: int) -> Load:
    plan: dict[str, object] = {"workers": 1, "turns": 100, "words": 8, "conversation": "grow", "tool_steps": 100}
    return Load(
        f"tool-loop-{instructions_bytes}",
        "A tool loop of 100 steps",
        {**plan, "item_bytes": 2000, "instructions_bytes": instructions_bytes},
        Shape(words=8, tool=1),
        (fig.UPSTREAM_KIB, fig.CONTINUED, fig.CPU_TURN, fig.FIRST_P50),
        paths=("warmline", "warmline-http"),
        note="Every answer is a call; each turn sends the whole conversation with the call's output of 2000 bytes. "
        "Over POST every request goes upstream whole. Instructions go along with every request either way.",
        group="tool-loop",
        variant=f"instructions of {instructions_bytes} bytes" if instructions_bytes else "no instructions",
        short_plan={"turns": 10},
    )


def _memory(hold: str, variant: str, note: str = "", *, tls: bool = False, deflate: bool = False) -> Memory:
    name = f"memory-{hold}{'-tls' if tls else ''}{'-deflate' if deflate else ''}"
    return Memory(name, "Resident memory per session", hold, variant, note=note, is_tls=tls, is_deflated=deflate)


_MEMORY_NOTE = (
    "RSS of the process with 600 sessions less the one before them, over 600; before them 50 sessions had a turn and "
    "were closed. Idle: the slot is READY. Used: one turn on it. Active: what a call in its middle takes "
    "beyond an idle session."
)

CELLS: tuple[Cell, ...] = (
    _first(1, 4, 0.001, 220, "First event, one session", paths=(*OWN, "warmline-http")),
    _first(16, 16, 0.005, 13, "First event, 16 sessions", paths=BARE),
    _first(64, 64, 0.005, 4, "First event, 64 sessions", fig.STREAMS_S),
    _paced(1),
    _paced(50),
    _paced(100),
    _paced(200),
    _paced(1000, turns=4),
    _paced(100, words=160),
    Load(
        "cpu-100-deflate",
        "Server CPU per event, compressed",
        {"workers": 100, "turns": 1, "warmup_turns": 1, "stagger_s": 0.5},
        Shape(words=60, pace_s=PACE_S),
        (fig.CPU_EVENT,),
        paths=("relay", "warmline"),
        note="100 sessions at 50 events/s against the simulator, which agrees to permessage-deflate. Same extension "
        "and windows on both paths.",
        is_deflated=True,
        short_plan={"workers": 10},
    ),
    Load(
        "burst-events",
        "Events per second at saturation",
        {"workers": 16, "duration_s": 1.2, "warmup_turns": 1, "words": 1000},
        Shape(words=1000),
        (fig.EVENTS_S, fig.CPU_EVENT),
        paths=BARE,
        note="16 sessions, turns of 1000 deltas without a pace. Warmline writes what is ready as one message.",
        short_plan={"duration_s": 0.3},
    ),
    Load(
        "burst-streams",
        "Streams per second at saturation",
        {"workers": 64, "duration_s": 1.2, "warmup_turns": 1, "words": 16},
        Shape(words=16),
        (fig.STREAMS_S, fig.CPU_TURN),
        has_peers=True,
        peer_repeats=3,
        note="64 sessions on open sockets, turns of 16 deltas without a pace; peers three times.",
        short_plan={"duration_s": 0.3},
    ),
    Load(
        "turn-starts",
        "Turns started per second",
        {"workers": 64, "duration_s": 1.2, "warmup_turns": 1, "words": 1},
        Shape(words=1),
        (fig.STREAMS_S, fig.CPU_TURN),
        paths=BARE,
        note="64 sessions on open sockets, turns of one delta.",
        short_plan={"duration_s": 0.3},
    ),
    Capacity(
        "capacity",
        "Sessions at 50 events/s without a stall",
        note="The most sessions of which none has a gap of over 200 ms, a lost event or a failed turn, while all "
        "stream together for 1.5 s; turns start at 200 a second. Found to within a tenth, in two searches.",
    ),
    _first_turn("cold", "cold", warm_up="none"),
    _first_turn("warmed", "warmed", await_ready=True),
    _first_turn("open", "open socket", await_ready=True, second_turn=True),
    _tool_loop(0),
    _tool_loop(4000),
    _history(10, "grow"),
    _history(100, "grow"),
    _history(1000, "grow"),
    _history(10, "append"),
    _history(100, "append"),
    _history(1000, "append"),
    _sessions(8),
    _sessions(80),
    _sessions(800),
    _size(32),
    _size(320),
    _size(3200),
    _memory("idle", "idle, plain", _MEMORY_NOTE),
    _memory("idle", "idle, deflate", deflate=True),
    _memory("idle", "idle, TLS", tls=True),
    _memory("idle", "idle, TLS and deflate", tls=True, deflate=True),
    _memory("used", "used, plain"),
    _memory("used", "used, TLS and deflate", tls=True, deflate=True),
    _memory("active", "active call, plain"),
    Cancelled(
        "cancelled",
        "Memory over 100,000 cancelled calls",
        note="16 sessions, callers leave after the third of 100 deltas. Growth is the slope of the least squares "
        "through up to 21 readings of RSS, sessions closed, after 8000 such calls that are not counted. With tracing "
        "as many calls as fit into 20 s, without it into 150 s.",
    ),
)

SHORT = (
    "first-c1",
    "first-c16",
    "cpu-50",
    "burst-events",
    "burst-streams",
    "capacity",
    "turn-cold",
    "turn-warmed",
    "tool-loop-4000",
    "history-10",
    "sessions-8",
    "memory-active",
    "memory-idle-tls-deflate",
    "cancelled",
)
"""One of each kind: what the short form runs."""
