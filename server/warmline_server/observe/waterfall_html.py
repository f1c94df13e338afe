"""The waterfall as one HTML page without anything from elsewhere: no script, no font, no image, no request."""

from collections.abc import Iterator, Sequence
from html import escape

from warmline_server.observe.waterfall import Bar, TurnView

_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem;color:#1c2733;background:#fff}
h1{font-size:1.2rem}h2{font-size:1rem;margin:2rem 0 .5rem}
.row{display:grid;grid-template-columns:15rem 1fr 8rem;gap:1rem;align-items:center}
.scale{position:relative;height:1.1rem;background:#eef2f6;border-radius:3px}
.bar{position:absolute;top:0;bottom:0;min-width:3px;border-radius:3px;background:#3d7ea6}
.call .bar{background:#7b8794}.connect .bar{background:#4c9a6a}.wait{background:#b5cfe0!important}
.failed .bar{background:#c0392b}.facts{margin:.1rem 0 .6rem 16rem;color:#52606d;font:12px/1.4 ui-monospace,monospace}
.depth1 .name{padding-left:1rem}.took{text-align:right;font-variant-numeric:tabular-nums}
@media(prefers-color-scheme:dark){body{background:#15191e;color:#dde3ea}.scale{background:#252c34}.facts{color:#9aa5b1}}
"""


def page(turns: Sequence[TurnView], title: str) -> str:
    """The whole page. Every text in it is escaped: ids and reasons come from elsewhere."""
    body = "".join(part for turn in turns for part in _turn(turn))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def _turn(turn: TurnView) -> Iterator[str]:
    lane = f", lane {turn.lane}" if turn.lane else ""
    took_ns = max(1, turn.ended_ns - turn.started_ns)
    yield f"<section><h2>turn {escape(turn.turn_id)}{escape(lane)} · {_ms(took_ns)}</h2>"
    for bar in turn.bars:
        yield from _bar(bar, turn.started_ns, took_ns)
    yield "</section>"


def _bar(bar: Bar, from_ns: int, span_ns: int) -> Iterator[str]:
    end_ns = bar.ended_ns if bar.ended_ns is not None else from_ns + span_ns
    took = _ms(end_ns - bar.started_ns) if bar.ended_ns is not None else "runs"
    failed = " failed" if bar.failed else ""
    yield f'<div class="row {bar.kind} depth{bar.depth}{failed}"><div class="name">{escape(bar.name)}</div>'
    yield f'<div class="scale" title="{escape(bar.outcome)}">'
    if bar.first_ns is not None:
        yield _piece("bar wait", bar.started_ns, bar.first_ns, from_ns, span_ns)
        yield _piece("bar", bar.first_ns, end_ns, from_ns, span_ns)
    else:
        yield _piece("bar", bar.started_ns, end_ns, from_ns, span_ns)
    yield f'</div><div class="took">{took}</div></div>'
    facts = [("outcome", bar.outcome), *bar.facts]
    yield f'<div class="facts">{escape("  ".join(f"{name}={value}" for name, value in facts))}</div>'


def _piece(css: str, start_ns: int, end_ns: int, from_ns: int, span_ns: int) -> str:
    left = min(100.0, max(0.0, 100 * (start_ns - from_ns) / span_ns))
    width = min(100.0 - left, max(0.0, 100 * (end_ns - start_ns) / span_ns))
    return f'<div class="{css}" style="left:{left:.3f}%;width:{width:.3f}%"></div>'


def _ms(duration_ns: int) -> str:
    return f"{duration_ns / 1e6:.1f} ms"
