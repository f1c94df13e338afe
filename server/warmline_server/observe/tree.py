"""Finished spans drawn as a tree of text, for the demo and for a console."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import StatusCode

from warmline_server.observe import names

# What a reader looks for, in this order; everything else is in the exported span.
SHOWN = (
    names.TURN_ID,
    names.RESPONSE_ID,
    names.UPSTREAM_REQUEST_ID,
    names.UPSTREAM_HANDSHAKE_REQUEST_ID,
    names.TRANSPORT,
    names.SLOT_OUTCOME,
    names.INCREMENTAL,
    names.FULL_REASON,
    names.OUTCOME,
    names.REASON,
    names.HTTP_STATUS,
    names.RPC_STATUS,
)


def spans_of_turn(spans: Iterable[ReadableSpan], turn_id: str) -> list[ReadableSpan]:
    """The spans of every trace that the turn touched, and the handshakes that its attempts link to."""
    every = list(spans)
    traces = {_trace_id(s) for s in every if (s.attributes or {}).get(names.TURN_ID) == turn_id}
    linked = {link.context.span_id for s in every if _trace_id(s) in traces for link in s.links}
    return [s for s in every if _trace_id(s) in traces or _span_id(s) in linked]


def draw(spans: Sequence[ReadableSpan]) -> str:
    """A tree per root, oldest first: name, duration, status and ids of each span, and what it links to."""
    known = {_span_id(span) for span in spans}
    children: dict[int | None, list[ReadableSpan]] = defaultdict(list)
    for span in sorted(spans, key=lambda s: s.start_time or 0):
        parent = span.parent.span_id if span.parent is not None and span.parent.span_id in known else None
        children[parent].append(span)
    lines: list[str] = []
    for root in children[None]:
        context = root.context
        lines.append(f"trace {context.trace_id:032x}" if context is not None else "trace unknown")
        lines.extend(_branch(root, children, "", last=True))
    return "\n".join(lines)


def _branch(
    span: ReadableSpan, children: dict[int | None, list[ReadableSpan]], indent: str, *, last: bool
) -> Iterator[str]:
    yield f"{indent}{'└─ ' if last else '├─ '}{_line(span)}"
    beneath = children[_span_id(span)]
    indent += "   " if last else "│  "
    for link in span.links:
        kind = (link.attributes or {}).get(names.LINK, "link")
        yield f"{indent}{'│' if beneath else ' '}  ⇢ {kind} {link.context.span_id:016x}"
    for child in beneath:
        yield from _branch(child, children, indent, last=child is beneath[-1])


def _line(span: ReadableSpan) -> str:
    parts = [f"{span.name} [{_span_id(span):016x}]"]
    if span.start_time is not None and span.end_time is not None:
        parts.append(f"{(span.end_time - span.start_time) / 1e6:.1f} ms")
    if span.status.status_code is StatusCode.ERROR:
        parts.append(f"ERROR {span.status.description or ''}".strip())
    attributes = span.attributes or {}
    parts += [f"{name.removeprefix('warmline.')}={_text(attributes[name])}" for name in SHOWN if name in attributes]
    return "  ".join(parts)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _span_id(span: ReadableSpan) -> int:
    return span.context.span_id if span.context is not None else 0


def _trace_id(span: ReadableSpan) -> int:
    return span.context.trace_id if span.context is not None else 0
