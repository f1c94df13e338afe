"""`warmline trace`: reduce a recorded bundle, draw a turn, find an inference by either of its ids."""

import argparse
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import warmline
from warmline.v1 import trace_service_pb2 as pb
from warmline.v1 import types_pb2
from warmline_server.observe import waterfall_html, waterfall_text
from warmline_server.observe.bundle import format as fmt
from warmline_server.observe.bundle.errors import ReplayError
from warmline_server.observe.bundle.reduce import replay
from warmline_server.observe.bundle.state import InferenceCall, encode
from warmline_server.observe.waterfall import Bar, TurnView, shown, turns_of

NOT_FOUND = 1
FAILED = 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    reduce = actions.add_parser("reduce", help="replay a bundle into its state.json")
    reduce.add_argument("bundle", type=Path, help="a bundle's directory")
    reduce.add_argument("--output", type=Path, metavar="FILE", help="default: state.json in the bundle; -: print it")
    show = actions.add_parser("show", help="draw the waterfall of turns")
    show.add_argument("bundle", type=Path, nargs="?", help="a bundle's directory; or --session")
    show.add_argument("--session", help="a session of a running server instead of a bundle")
    show.add_argument("--turn", default="", help="only this turn")
    show.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    show.add_argument("--width", type=int, default=0, help="characters per line; default: the terminal's")
    find = actions.add_parser("find", help="find an inference by its response id or its upstream request id")
    find.add_argument("id", help="a response id, an upstream request id, or that of a handshake")
    find.add_argument(
        "--bundles", type=Path, metavar="DIR", help="search the bundles beneath this directory instead of a server"
    )
    for command in (show, find):
        command.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="default: %(default)s")


async def run(args: argparse.Namespace) -> int:
    """Runs the action. Returns: 0; 1 when nothing was found; 2 when the bundle or the server failed."""
    try:
        match args.action:
            case "reduce":
                return _reduce(args.bundle, args.output)
            case "show":
                return await _show(args)
            case _:
                return await _find(args)
    except (ReplayError, OSError, warmline.WarmlineError) as error:
        print(f"warmline trace {args.action}: {error}", file=sys.stderr)
        return FAILED


def _reduce(bundle: Path, output: Path | None) -> int:
    state = encode(replay(bundle))
    if output == Path("-"):
        sys.stdout.write(state.decode() + "\n")
        return 0
    path = output or bundle / fmt.STATE
    path.write_bytes(state)
    print(path)
    return 0


async def _show(args: argparse.Namespace) -> int:
    if (args.bundle is None) == (args.session is None):
        print("warmline trace show: give a bundle's directory, or --session ID", file=sys.stderr)
        return FAILED
    if args.bundle is not None:
        turns, title = turns_of(replay(args.bundle), args.turn), f"bundle {args.bundle.name}"
    else:
        async with warmline.Client(args.server) as client:
            found = [inference async for inference in _of_session(client, args.session, turn_id=args.turn)]
        turns, title = _views(reversed(found)), f"session {args.session}"
    if not turns:
        print(f"warmline trace show: no turn{f' {args.turn}' if args.turn else ''} in {title}", file=sys.stderr)
        return NOT_FOUND
    if args.html is not None:
        args.html.write_text(waterfall_html.page(turns, title), encoding="utf-8")
        print(args.html)
    else:
        print(waterfall_text.draw(turns, args.width or shutil.get_terminal_size().columns))
    return 0


async def _find(args: argparse.Namespace) -> int:
    count = 0
    if args.bundles is not None:
        for text in _in_bundles(args.bundles, args.id):
            count += 1
            print(text)
    else:
        async with warmline.Client(args.server) as client:
            async for session in client.list_sessions():
                async for inference in _of_session(client, session.session_id):
                    if args.id in _ids(inference):
                        count += 1
                        print(_inference_text(session.session_id, inference))
    if not count:
        print(f"warmline trace find: {args.id} is not known here", file=sys.stderr)
    return 0 if count else NOT_FOUND


def _in_bundles(root: Path, wanted: str) -> Iterator[str]:
    """What is known of an id, per bundle. A damaged bundle is told and does not end the search."""
    for manifest in sorted(root.rglob(fmt.MANIFEST)):
        bundle = manifest.parent
        # The log of a bundle without the id is not worth a replay.
        with contextlib.suppress(OSError):
            if wanted.encode() not in (bundle / fmt.EVENT_LOG).read_bytes():
                continue
        try:
            state = replay(bundle)
        except ReplayError as error:
            print(f"warmline trace find: {bundle}: {error}", file=sys.stderr)
            continue
        handshakes = {c.connection_id for c in state.connects.values() if c.upstream_handshake_request_id == wanted}
        for call in state.inference_calls.values():
            on_it = call.facts is not None and call.facts.connection_id in handshakes
            if wanted in (call.response_id, call.upstream_request_id) or on_it:
                payloads = [call.raw_request_payload_id, call.raw_response_payload_id]
                paths = [str(bundle / state.raw_payloads[name].path) for name in payloads if name is not None]
                yield _call_text(state.rollout_id, call, bundle, paths)


def _call_text(session_id: str, call: InferenceCall, bundle: Path, payloads: list[str]) -> str:
    facts = call.facts
    return _lines(
        [
            ("session", session_id),
            ("turn", call.codex_turn_id),
            ("attempt", f"{facts.attempt} ({call.inference_call_id})" if facts else call.inference_call_id),
            ("status", call.execution.status.value),
            ("reason", call.reason),
            ("transport", facts.transport if facts else ""),
            ("response_id", call.response_id),
            ("upstream_request_id", call.upstream_request_id or "unknown"),
            ("upstream_handshake_request_id", facts.upstream_handshake_request_id if facts else None),
            ("trace_id", facts.trace_id if facts else ""),
            ("span_id", facts.span_id if facts else ""),
            ("bundle", bundle),
            ("asked", payloads[0]),
            ("answered", payloads[1] if len(payloads) > 1 else None),
        ]
    )


def _ids(found: pb.Inference) -> tuple[str, str, str]:
    """The service's own filter knows the first two; a handshake's id leads to all attempts on its socket."""
    return found.response_id, found.upstream_request_id, found.upstream_handshake_request_id


def _inference_text(session_id: str, found: pb.Inference) -> str:
    return _lines(
        [
            ("session", session_id),
            ("turn", found.turn_id or "warm-up"),
            ("attempt", f"{found.attempt} ({found.attempt_id})"),
            ("status", _word(pb.InferenceStatus.Name(found.status), "INFERENCE_STATUS_")),
            ("reason", found.error_reason),
            ("transport", _word(types_pb2.Transport.Name(found.transport), "TRANSPORT_")),
            ("response_id", found.response_id),
            ("upstream_request_id", found.upstream_request_id or "unknown"),
            ("upstream_handshake_request_id", found.upstream_handshake_request_id),
            ("trace_id", found.trace_id),
            ("span_id", found.span_id),
        ]
    )


def _lines(pairs: Iterable[tuple[str, object]]) -> str:
    return "\n".join(f"{name:>30}  {value}" for name, value in shown(pairs)) + "\n"


async def _of_session(client: warmline.Client, session_id: str, *, turn_id: str = "") -> AsyncIterator[pb.Inference]:
    session = client.session(session_id, start="attach", close_on_exit=False)
    async for inference in session.list_inferences(turn_id=turn_id):
        yield inference


def _views(inferences: Iterable[pb.Inference]) -> list[TurnView]:
    """Turns out of the ring's entries, oldest first: a call is as long as its attempts."""
    turns: dict[tuple[str, str], TurnView] = {}
    calls: dict[str, list[pb.Inference]] = {}
    for found in inferences:
        if found.kind == pb.INFERENCE_KIND_TURN:
            turns.setdefault((found.lane, found.turn_id), TurnView(found.turn_id, found.lane))
            calls.setdefault(found.request_id, []).append(found)
    for attempts in calls.values():
        last = attempts[-1]
        view = turns[last.lane, last.turn_id]
        view.bars.append(_call_bar(attempts[0], last))
        view.bars.extend(map(_attempt_bar, attempts))
    return list(turns.values())


def _call_bar(first: pb.Inference, last: pb.Inference) -> Bar:
    return Bar(
        "call",
        f"call {first.request_id}",
        first.start_time.ToNanoseconds(),
        last.end_time.ToNanoseconds() if last.HasField("end_time") else None,
        _word(pb.InferenceStatus.Name(last.status), "INFERENCE_STATUS_"),
        0,
        failed=last.status == pb.INFERENCE_STATUS_FAILED,
        facts=shown([("trace_id", first.trace_id)]),
    )


def _attempt_bar(found: pb.Inference) -> Bar:
    full = _word(types_pb2.FullReason.Name(found.full_reason), "FULL_REASON_")
    over_websocket = found.transport == types_pb2.TRANSPORT_WEBSOCKET
    usage = found.usage
    return Bar(
        "attempt",
        f"attempt {found.attempt}",
        found.start_time.ToNanoseconds(),
        found.end_time.ToNanoseconds() if found.HasField("end_time") else None,
        _word(pb.InferenceStatus.Name(found.status), "INFERENCE_STATUS_"),
        1,
        first_ns=found.first_event_time.ToNanoseconds() if found.HasField("first_event_time") else None,
        failed=found.status == pb.INFERENCE_STATUS_FAILED,
        facts=shown(
            [
                ("reason", found.error_reason),
                ("response_id", found.response_id),
                ("upstream_request_id", found.upstream_request_id or ("unknown (WebSocket)" if over_websocket else "")),
                ("upstream_handshake_request_id", found.upstream_handshake_request_id),
                ("transport", _word(types_pb2.Transport.Name(found.transport), "TRANSPORT_")),
                ("slot", _word(types_pb2.SlotOutcome.Name(found.slot_outcome), "SLOT_OUTCOME_")),
                ("request", "incremental" if found.incremental else f"full ({full})"),
                ("http_status", found.upstream_status or None),
                ("tokens", f"{usage.input_tokens} in, {usage.output_tokens} out" if found.HasField("usage") else ""),
                ("model", found.model),
                ("attempt_id", found.attempt_id),
                ("span_id", found.span_id),
            ]
        ),
    )


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
