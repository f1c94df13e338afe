"""The waterfall for a terminal: one line per bar on a common scale of time."""

from collections.abc import Iterator, Sequence

from warmline_server.observe.waterfall import Bar, TurnView, visible

NAME_WIDTH = 24
MIN_SCALE = 20


def draw(turns: Sequence[TurnView], width: int) -> str:
    """All turns, oldest first, in lines of about `width` characters."""
    return "\n\n".join("\n".join(map(visible, _turn(turn, width))) for turn in turns)


def _turn(turn: TurnView, width: int) -> Iterator[str]:
    lane = f"  lane {turn.lane}" if turn.lane else ""
    yield f"turn {turn.turn_id}{lane}  {_ms(turn.ended_ns - turn.started_ns)}"
    scale = max(MIN_SCALE, width - NAME_WIDTH - 28)
    for bar in turn.bars:
        name = ("  " * (bar.depth + 1) + bar.name)[:NAME_WIDTH].ljust(NAME_WIDTH)
        line = _line(bar, turn.started_ns, max(1, turn.ended_ns - turn.started_ns), scale)
        took = _ms(bar.ended_ns - bar.started_ns) if bar.ended_ns is not None else "runs"
        first = f", first event after {_ms(bar.first_ns - bar.started_ns)}" if bar.first_ns is not None else ""
        yield f"{name} |{line}| {took:>9}  {bar.outcome}{first}"
        yield from _facts(bar, width)


def _facts(bar: Bar, width: int) -> Iterator[str]:
    """As many facts to a line as fit; none is ever cut, so that an id can be copied."""
    indent = " " * (2 * bar.depth + 6)
    line = indent
    for fact, value in bar.facts:
        word = f"{fact}={value}"
        if line != indent and len(line) + 2 + len(word) > width:
            yield line
            line = indent
        line += word if line == indent else f"  {word}"
    if line != indent:
        yield line


def _line(bar: Bar, from_ns: int, span_ns: int, scale: int) -> str:
    """Waiting is drawn light, streaming dark, a failure with a cross; never less than one character."""

    def column(at_ns: int) -> int:
        return min(scale - 1, max(0, (at_ns - from_ns) * scale // span_ns))

    start, end = column(bar.started_ns), column(bar.ended_ns if bar.ended_ns is not None else from_ns + span_ns)
    first = column(bar.first_ns) if bar.first_ns is not None else None
    body = ["░" if first is not None and at < first else "█" for at in range(start, end + 1)]
    if bar.kind == "attempt" and first is None:
        body = ["░"] * len(body)
    if bar.failed:
        body[-1] = "✗"
    return " " * start + "".join(body) + " " * (scale - end - 1)


def _ms(duration_ns: int) -> str:
    return f"{duration_ns / 1e6:.1f} ms"
