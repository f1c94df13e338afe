"""Plays one scenario through the Python client: see client_stubs/scenarios/README.md."""

import argparse
import asyncio
import json
import sys
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc

import warmline
from warmline.v1 import session_service_pb2, types_pb2

Json = Mapping[str, Any]


class StepError(Exception):
    """A step did not go as expected."""


@dataclass(slots=True)
class Played:
    """A turn that was sent, and what its caller was given."""

    turn: warmline.Turn
    sent: list[types_pb2.Item]
    events: Counter[str] = field(default_factory=Counter)
    payloads: int = 0
    error: warmline.WarmlineError | None = None

    async def read(self, event: str = "", count: int = 1) -> None:
        """Reads to the n-th event of that name, or to the end. Raises: WarmlineError; StepError when it never came."""
        async for found in self.turn:
            kind = str(found.WhichOneof("event"))
            self.events[kind] += 1
            self.payloads += found.HasField("payload_json")
            if kind == event and (count := count - 1) == 0:
                return
        if event:
            raise StepError(f"the turn ended before {event}; there were {dict(self.events)}")


class Runner:
    """Plays the steps of a scenario."""

    def __init__(self, client: warmline.Client, control: str) -> None:
        self.turns: dict[str, Played] = {}
        self._client = client
        self._url = control
        self._sessions: dict[str, warmline.Session] = {}

    async def play(self, steps: list[Json]) -> str | None:
        """Plays the steps; returns what went wrong in the first that did, None if none did."""
        for number, step in enumerate(steps, start=1):
            ((verb, fields),) = step.items()
            try:
                await getattr(self, f"_{verb}")(fields if isinstance(fields, dict) else {"path": fields})
            except (StepError, warmline.WarmlineError, OSError, TypeError, LookupError, ValueError) as error:
                return f"step {number} {verb}: {error or type(error).__name__}"
        return None

    async def close(self) -> None:
        """Leaves every turn that is still open."""
        for played in self.turns.values():
            await played.turn.__aexit__(None, None, None)

    def results(self) -> Json:
        """The result objects of all turns."""
        return {name: result_object(played) for name, played in self.turns.items()}

    async def _session(self, fields: dict[str, Any]) -> None:
        options = dict(fields)
        session_id, expected = options.pop("id"), options.pop("error", None)
        config = types_pb2.SessionConfig()
        if (warm_up := options.pop("warm_up", None)) is not None:
            config.warm_up = types_pb2.WarmUpMode.Value(f"WARM_UP_MODE_{warm_up.upper()}")
        if options.pop("http_only", False):
            config.fallback_policy.http_only = True
        if (retries := options.pop("stream_max_retries", None)) is not None:
            config.retry_policy.stream_max_retries = retries
        if (lanes := options.pop("max_lanes", None)) is not None:
            config.limits.max_lanes = lanes
        attached = options.get("start") == "attach"
        self._sessions[session_id] = session = self._client.session(session_id, None if attached else config, **options)
        await self._expecting(session.__aenter__(), expected)

    async def _turn(self, fields: dict[str, Any]) -> None:
        options = dict(fields)
        name, session = options.pop("as"), self._sessions[options.pop("session")]
        sent = [made for item in options.pop("input") for made in self._items(item)]
        if isinstance(position := options.get("append_at"), dict):
            options["append_at"] = self.turns[position["position_of"]].turn.snapshot().history_position
        turn = session.turn(sent, **options)
        self.turns[name] = Played(turn, sent)
        await turn.__aenter__()

    async def _read_until(self, fields: Json) -> None:
        await self.turns[fields["turn"]].read(fields["event"], fields.get("count", 1))

    async def _expect_result(self, fields: dict[str, Any]) -> None:
        expected = dict(fields)
        played = self.turns[expected.pop("turn")]
        await played.read()
        compare(result_object(played), expected)

    async def _expect_error(self, fields: dict[str, Any]) -> None:
        expected = dict(fields)
        played, snapshot = self.turns[expected.pop("turn")], expected.pop("snapshot", {})
        try:
            await played.read()
        except warmline.WarmlineError as error:
            played.error = error
            compare(error_object(error), expected)
            compare(result_object(played), snapshot)
        else:
            raise StepError(f"the turn ended well: {result_object(played)}")

    async def _cancel(self, fields: Json) -> None:
        await self._post("/mark/cancel")
        await self.turns[fields["turn"]].turn.__aexit__(None, None, None)

    async def _cancel_turn(self, fields: dict[str, Any]) -> None:
        session = self._sessions[fields["session"]]
        ids = {name: fields[name] for name in ("request_id", "turn_id") if name in fields}
        found = await self._expecting(session.cancel_turn(**ids), fields.get("error"))
        if "expect" in fields:
            compare(found, fields["expect"])

    async def _preconnect(self, fields: Json) -> None:
        session = self._sessions[fields["session"]]
        slot = await self._expecting(session.preconnect(wait=True), fields.get("error"))
        if "expect" in fields:
            name = session_service_pb2.SlotState.Name(slot.state)
            compare(name.removeprefix("SLOT_STATE_"), fields["expect"])

    async def _close(self, fields: Json) -> None:
        await self._expecting(self._sessions[fields["session"]].close(), fields.get("error"))

    async def _control(self, fields: Json) -> None:
        compare(await self._post(fields["path"]), fields.get("expect", {}))

    async def _post(self, path: str) -> Any:
        request = urllib.request.Request(self._url + path, method="POST")
        with await asyncio.to_thread(_NO_PROXY.open, request) as response:
            return json.load(response)

    def _items(self, item: Any) -> list[types_pb2.Item]:
        match item:
            case str():
                return [warmline.user(item)]
            case {"developer": text}:
                return [warmline.developer(text)]
            case {"function_output": {"call_id": call_id, "output": output}}:
                return [warmline.function_output(call_id, output)]
            case {"json": text}:
                return [types_pb2.Item(json=text.encode())]
            case {"conversation_of": name}:
                played = self.turns[name]
                outputs = [types_pb2.Item(json=output) for output in played.turn.snapshot().items]
                return [*played.sent, *outputs]
        raise StepError(f"unknown item {item}")

    async def _expecting(self, call: Awaitable[Any], expected: Json | None) -> Any:
        """Makes a call that shall succeed, or with `expected` fail like that."""
        if expected is None:
            return await call
        try:
            await call
        except warmline.WarmlineError as error:
            compare(error_object(error), expected)
            return None
        raise StepError(f"the call succeeded, expected {expected}")


_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def result_object(played: Played) -> dict[str, Any]:
    """A turn's outcome so far as the result object."""
    result = played.turn.snapshot()
    found = {name: getattr(result, name) for name in warmline.TurnResult.__slots__}
    usage = result.usage
    return {
        **found,
        "text_bytes": len(result.text.encode(errors="surrogatepass")),
        "items": [item.decode() for item in result.items],
        "function_calls": [asdict(call) for call in result.function_calls],
        "custom_tool_calls": [asdict(call) for call in result.custom_tool_calls],
        "usage": None if usage is None else {d.name: getattr(usage, d.name) for d in usage.DESCRIPTOR.fields},
        "events": dict(played.events),
        "payloads": played.payloads,
    }


def error_object(error: warmline.WarmlineError) -> dict[str, Any]:
    """An error as the error object."""
    return {
        "kind": type(error).__name__.removesuffix("Error"),
        "code": None if error.code is None else error.code.name,
        "reason": error.reason,
        "turn_id": error.turn_id,
        "request_id": error.request_id,
        "response_id": error.response_id,
        "upstream_request_id": error.upstream_request_id,
        "attempts": error.attempts,
        "retry_after_s": error.retry_after_s,
        "fields": [violation.field for violation in error.field_violations],
        "quotas": [violation.subject for violation in error.quota_violations],
        "upstream": None if error.upstream is None else asdict(error.upstream),
    }


def compare(found: Any, expected: Any, path: str = "") -> None:
    """Raises StepError where `found` is not as expected."""
    match expected:
        case {"$any": values}:
            is_as_expected = found in values
        case {"$present": present}:
            is_as_expected = bool(found) is present
        case dict():
            if not isinstance(found, dict):
                raise StepError(f"{path}: found {found!r}, expected an object")
            for name, value in expected.items():
                compare(found.get(name), value, f"{path}.{name}" if path else name)
            return
        case list():
            is_as_expected = isinstance(found, list) and len(found) == len(expected)
            if is_as_expected:
                for number, (one, other) in enumerate(zip(found, expected, strict=True)):
                    compare(one, other, f"{path}[{number}]")
        case _:
            is_as_expected = found == expected
    if not is_as_expected:
        raise StepError(f"{path}: found {found!r}, expected {expected!r}")


def open_client(address: str, settings: dict[str, Any]) -> warmline.Client:
    """The client that a scenario wants."""
    options = dict(settings)
    if (tries := options.pop("max_tries", None)) is not None:
        options["retry"] = warmline.CallRetry(max_tries=tries)
    if isinstance(tls := options.pop("tls", False), dict):
        options["tls"] = warmline.Tls.from_files(
            root_certificates=tls["ca"],
            certificate_chain=tls.get("cert"),
            private_key=tls.get("key"),
            server_name=tls.get("server_name"),
        )
    else:
        options["tls"] = tls
    return warmline.Client(address, **options)


async def run(address: str, scenario: Json, control: str) -> Json:
    """Plays a scenario and returns what the harness reads."""
    async with open_client(address, scenario["client"]) as client:
        runner = Runner(client, control)
        failure = await runner.play(scenario["steps"])
        turns = runner.results()
        await runner.close()
    made_of = f"Python {sys.version.split()[0]}, grpcio {grpc.__version__}"
    return {"ok": failure is None, "failure": failure, "language": made_of, "turns": turns}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    for name in ("address", "scenario", "control"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    scenario = json.loads(Path(args.scenario).read_text(encoding="utf-8"))
    print(json.dumps(asyncio.run(run(args.address, scenario, args.control))))


if __name__ == "__main__":
    main()
