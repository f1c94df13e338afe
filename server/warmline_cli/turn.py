"""`warmline turn`: one turn from the command line, streamed to stdout.

Exit codes: 0 completed; 1 the turn failed; 2 the command line, the input or the request is wrong; 3 nobody can serve it
now, trying again may help; 4 the response ended early; 141 the reader of stdout went away.
"""

import argparse
import os
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

import warmline
from warmline.items import Options
from warmline.progress import text_delta
from warmline.session import EventMode
from warmline.v1 import turn_service_pb2, types_pb2
from warmline_cli.conversation import (
    Conversation,
    InputError,
    read_conversation,
    read_tools,
    save,
    user_item,
)

COMPLETED = 0
FAILED = 1
WRONG = 2
UNAVAILABLE = 3
INCOMPLETE = 4
PIPE_CLOSED = 141

# What to do about a failure, by the error's reason, else by its class.
_HINTS: dict[str, str] = {
    "UNKNOWN_UPSTREAM": "name one that the server's configuration has, with --upstream",
    "SESSION_CONFIG_CONFLICT": "the session was made with another config: give --attach to use it as it is",
    "SESSION_NOT_FOUND": "leave --attach out to make the session",
    "SESSION_KEY_MISMATCH": "a proxy changed the metadata key x-warmline-session",
    "RESERVED_KEY": "take that key out of the input's request body; the server sets it itself",
    "LANE_BUSY": "another call runs on this lane: wait for it, or give another --lane or --session",
    "LOST_AFTER_TOOL_CALL": "what was delivered counts: --output has it; answer its calls and go on from there",
    "CONTEXT_TOO_LONG": "shorten the conversation",
    "UPSTREAM_AUTH": "the server's credential for the provider was refused: check it where the server runs",
    "UPSTREAM_NOT_FOUND": "check --model, and the upstream's base URL in the server's configuration",
    "UPSTREAM_QUOTA": "the provider's account has no quota left",
    "UNAUTHENTICATED": "give --token-file, or --certificate and --key",
}
_HINTS_BY_CLASS: dict[type[warmline.WarmlineError], str] = {
    warmline.DeadlineExceededError: "give it more time, see --timeout",
    warmline.TurnInterruptedError: "nothing was saved; the same command sends the turn again",
}
_NO_MODEL = "give --model; a session that is joined with --attach may have one of its own"
_UNREACHED = "is the server running, and the address right? `warmline serve` starts one; see --server"

# A person waits: long enough for a hiccup, not for a restart.
_RETRY = warmline.CallRetry(max_tries=4)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.epilog = (__doc__ or "").partition("\n\n")[2]
    parser.add_argument("prompt", nargs="?", help="a user's message; with --input, the one that follows it")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="the conversation: a JSON array of items, items one after another (JSON Lines), or a saved request body "
        "with `input`; - reads stdin",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the conversation with the answer's items there, each byte for byte, so that --input continues it; "
        "an existing file must be the --input",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON object per event instead of the text")
    form.add_argument("--raw", action="store_true", help="print the provider's own events, one per line")
    parser.add_argument("--session", help="session to use, and to leave open; default: a new one, closed afterwards")
    parser.add_argument("--attach", action="store_true", help="the --session exists: use it with the config it has")
    parser.add_argument("--lane", default="", help="lane of the session; default: its default lane")
    parser.add_argument("--turn-id", default="", help="turn that the call belongs to; default: a new one")
    parser.add_argument("--upstream", default="", help="upstream of the session; default: the server's")
    parser.add_argument("--model", help="model; default: the one of the input's request body")
    parser.add_argument("--tools", metavar="FILE", help="a JSON array of tools that the model may call")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="deadline of the turn; default: none")
    _add_connection_arguments(parser)


def _add_connection_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--server", default="127.0.0.1:50051", metavar="HOST:PORT", help="default: %(default)s")
    parser.add_argument("--tls", action="store_true", help="connect with TLS, trusting gRPC's roots")
    parser.add_argument("--ca", metavar="FILE", help="connect with TLS, trusting these roots (PEM)")
    parser.add_argument("--certificate", metavar="FILE", help="the client's certificate (PEM), for mTLS; with --key")
    parser.add_argument("--key", metavar="FILE", help="its key (PEM)")
    parser.add_argument("--token-file", metavar="FILE", help="file with the token to show")


async def run(args: argparse.Namespace) -> int:
    """Runs the turn that the arguments ask for; returns the exit code.

    Cancel: cancels the turn.
    """
    try:
        conversation, options, client = _prepare(args)
    except (InputError, OSError, ValueError) as error:
        return _fail(str(error), WRONG)
    try:
        return await _stream(args, conversation, options, client)
    except warmline.WarmlineError as error:
        return _report(error)
    except ValueError as error:
        return _fail(str(error), WRONG)
    except BrokenPipeError:
        # Nobody reads any more. The interpreter would complain when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except OSError as error:
        return _fail(f"the turn was answered, but not saved: {error}", FAILED)


def _prepare(args: argparse.Namespace) -> tuple[Conversation, Options, warmline.Client]:
    """Reads all files, so that nothing is sent when one is wrong."""
    if args.attach and (args.session is None or args.upstream):
        raise InputError("--attach joins the session that --session names, with the --upstream it has")
    conversation = _read_input(args)
    _check_output(args)
    options: Options = {}
    if args.model is not None:
        options["model"] = args.model
    if args.tools is not None:
        options["tools"] = read_tools(Path(args.tools).read_bytes())
    tls: bool | warmline.Tls = args.tls
    if args.ca or args.certificate or args.key:
        tls = warmline.Tls.from_files(
            root_certificates=args.ca, certificate_chain=args.certificate, private_key=args.key
        )
    token = None if args.token_file is None else Path(args.token_file).read_text()
    return conversation, options, warmline.Client(args.server, tls=tls, token=token, retry=_RETRY)


def _read_input(args: argparse.Namespace) -> Conversation:
    if args.input is None and args.prompt is None:
        raise InputError("nothing to say: give a prompt, or a conversation with --input")
    conversation = Conversation()
    if args.input is not None:
        data = sys.stdin.buffer.read() if args.input == "-" else Path(args.input).read_bytes()
        conversation = read_conversation(data)
    if args.prompt is not None:
        conversation = replace(conversation, items=(*conversation.items, user_item(args.prompt)))
    return conversation


def _check_output(args: argparse.Namespace) -> None:
    """Refuses an output file that would replace another conversation, or that cannot be."""
    if args.output is None:
        return
    path = Path(args.output)
    if not path.parent.is_dir():
        raise InputError(f"write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"write {path}: the folder cannot be written to")
    if path.exists() and not (args.input not in (None, "-") and path.samefile(args.input)):
        raise InputError(f"write {path}: it exists; give it as --input too, to continue it, or take another name")


async def _stream(
    args: argparse.Namespace, conversation: Conversation, options: Options, client: warmline.Client
) -> int:
    async with client:
        session = client.session(
            args.session or f"turn-{uuid.uuid4()}",
            upstream=args.upstream,
            start="attach" if args.attach else "lazy",
            close_on_exit=args.session is None,
        )
        async with session, _turn(args, session, conversation, options) as turn:
            try:
                await _print_events(turn, args)
            except warmline.WarmlineError as error:
                if error.reason == "LOST_AFTER_TOOL_CALL":
                    _save(args, conversation, turn.snapshot())
                raise
            result = await turn.result()
    _save(args, conversation, result)
    _print_outcome(result)
    return COMPLETED if result.ending == "completed" else INCOMPLETE


def _turn(
    args: argparse.Namespace, session: warmline.Session, conversation: Conversation, options: Options
) -> warmline.Turn:
    events: EventMode = "raw" if args.raw else "both" if args.json else "typed"
    return session.turn(
        conversation.items,
        turn_id=args.turn_id,
        lane=args.lane,
        events=events,
        timeout_s=args.timeout,
        request_json=conversation.request_json,
        **options,
    )


async def _print_events(turn: warmline.Turn, args: argparse.Namespace) -> None:
    is_text_open = False
    async for event in turn:
        if args.json:
            _write(_event_json(event) + b"\n")
        elif args.raw:
            if event.HasField("payload_json"):
                _write(_one_line(event.payload_json) + b"\n")
        elif (piece := text_delta(event)) is not None:
            _write(piece.encode())
            is_text_open = True
    if is_text_open:
        _write(b"\n")


def _save(args: argparse.Namespace, conversation: Conversation, result: warmline.TurnResult) -> None:
    if args.output is not None:
        save(Path(args.output), conversation.items + result.items)


def _print_outcome(result: warmline.TurnResult) -> None:
    calls: list[warmline.FunctionCall | warmline.CustomToolCall] = [*result.function_calls, *result.custom_tool_calls]
    for call in calls:
        given = call.arguments if isinstance(call, warmline.FunctionCall) else call.input
        _say(f"call {call.call_id}: {call.name} {given}")
    upstream_request = result.upstream_request_id or (
        "unknown (WebSocket)" if result.transport == "WEBSOCKET" else "unknown"
    )
    facts = [
        f"turn {result.turn_id}",
        f"slot {result.slot_outcome}",
        f"over {result.transport}",
        f"response {result.response_id}",
        f"upstream request {upstream_request}",
        _usage_words(result.usage),
    ]
    if result.attempts > 1:
        facts.append(f"{result.attempts} attempts")
    if result.fell_back is not None:
        facts.append(f"fell back ({result.fell_back})")
    if result.incomplete_reason is not None:
        facts.append(f"incomplete ({result.incomplete_reason})")
    if result.unknown_events:
        facts.append(f"{result.unknown_events} events of a newer server skipped")
    _say(", ".join(facts))


def _usage_words(usage: types_pb2.Usage | None) -> str:
    if usage is None:
        return "usage unknown"
    return f"{usage.input_tokens} tokens in ({usage.cached_input_tokens} cached), {usage.output_tokens} out"


def _report(error: warmline.WarmlineError) -> int:
    """Says what failed and what to do about it; returns the exit code."""
    words = [str(error)]
    words += [f"{violation.field}: {violation.description}" for violation in error.field_violations]
    words += [f"{violation.subject}: {violation.description}" for violation in error.quota_violations]
    if error.upstream is not None and error.upstream.message:
        words.append(f"the provider says: {error.upstream.message}")
    if error.retry_after_s is not None:
        words.append(f"try again in {error.retry_after_s:g} s")
    hint = _UNREACHED if error.facts.is_transport_failure else _HINTS.get(error.reason)
    if any(violation.field == "options.model" for violation in error.field_violations):
        hint = _NO_MODEL
    if hint := hint or _HINTS_BY_CLASS.get(type(error)):
        words.append(hint)
    may_help = isinstance(error, warmline.UnavailableError) or error.retry_after_s is not None
    is_wrong = isinstance(error, warmline.InvalidRequestError | warmline.ConflictError)
    return _fail("\n  ".join(words), UNAVAILABLE if may_help else WRONG if is_wrong else FAILED)


def _event_json(event: turn_service_pb2.TurnEvent) -> bytes:
    """An event as one line of JSON: `event` names the member, `data` is it, `payload` the provider's event verbatim."""
    name = event.WhichOneof("event") or ""
    line: dict[str, object] = {"sequence": event.sequence, "attempt": event.attempt, "event": name}
    if event.upstream_type:
        line["upstream_type"] = event.upstream_type
    line["data"] = _plain(getattr(event, name))
    if event.HasField("payload_json"):
        line["payload"] = msgspec.Raw(_one_line(event.payload_json))
    return msgspec.json.encode(line)


def _plain(message: Message) -> object:
    """A message as values for JSON: absent fields left out, items verbatim, enums by name, durations in seconds."""
    match message:
        case types_pb2.Item():
            return msgspec.Raw(_one_line(message.json))
        case Duration():
            return message.ToTimedelta().total_seconds()
        case Timestamp():
            return message.ToJsonString()
    return {
        field.name: _plain_field(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if not field.has_presence or message.HasField(field.name)
    }


def _plain_field(field: Any, value: Any) -> object:
    if isinstance(value, Message):
        return _plain(value)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain_field(field, one) for one in value]
    if field.enum_type is not None:
        known: Mapping[int, Any] = field.enum_type.values_by_number
        return known[value].name if value in known else value
    return value


def _one_line(json_text: bytes) -> bytes:
    """JSON without line ends: in valid JSON they stand only between tokens, so its value stays the same."""
    return json_text.replace(b"\r", b" ").replace(b"\n", b" ")


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _fail(text: str, code: int) -> int:
    _say(f"warmline turn: {text}")
    return code
