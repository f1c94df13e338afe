"""Plays a session and two turns through the frozen stub, and prints what it understood as one line of JSON."""

import importlib
import json
import sys
from typing import Any

import grpc

# The stub has no types, and must not be found by whoever checks today's.
sessions, sessions_grpc, turns, turns_grpc, types = (
    importlib.import_module(f"interop.frozen.v1.{name}")
    for name in (
        "session_service_pb2",
        "session_service_pb2_grpc",
        "turn_service_pb2",
        "turn_service_pb2_grpc",
        "types_pb2",
    )
)

PATIENCE_S = 20.0


def answer(stub: Any, text: str, turn_id: str) -> dict[str, Any]:
    """Runs a turn: its members by name (None for one that the stub does not know), its text, how it ended."""
    request = turns.StreamTurnRequest(session_id="frozen", turn_id=turn_id, input=[message(text)])
    request.session_config.CopyFrom(config())
    events = [event for response in stub.StreamTurn(request, timeout=PATIENCE_S) for event in response.events]
    return {
        "sequences": [event.sequence for event in events],
        "members": [event.WhichOneof("event") for event in events],
        "text": "".join(event.text_delta.delta for event in events),
        "items": [event.item_done.item.json.decode() for event in events if event.HasField("item_done")],
        "response_id": events[-1].completed.response_id,
        "transport": next(event.attempt_started.transport for event in events if event.HasField("attempt_started")),
    }


def refused(stub: Any) -> str:
    """The code of a call that the contract forbids."""
    try:
        list(stub.StreamTurn(turns.StreamTurnRequest(session_id="frozen"), timeout=PATIENCE_S))
    except grpc.RpcError as error:
        return str(error.code().name)
    return ""


def config() -> Any:
    """A session's config."""
    made = types.SessionConfig()
    made.request_defaults.model = "sim-large"
    return made


def message(text: str) -> Any:
    """A user's message."""
    return types.Item(message=types.TextMessage(role="user", text=text))


def main() -> None:
    """The command: the address, then what is played."""
    address, turn_id = sys.argv[1:]
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        created = sessions_grpc.SessionServiceStub(channel).CreateSession(
            sessions.CreateSessionRequest(session_id="frozen", config=config()), timeout=PATIENCE_S
        )
        stub = turns_grpc.TurnServiceStub(channel)
        told = {"created": created.created, "turn": answer(stub, "hello", turn_id), "refused": refused(stub)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
