"""Plays with the frozen stub what an agent does, and prints what it understood as one line of JSON.

python -m interop.frozen.play ADDRESS ACT…, where an act is a function below; see `ACTS`.
"""

import importlib
import json
import sys
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

# The stub has no types, and must not be found by whoever checks today's.
sessions, sessions_grpc, traces, traces_grpc, turns, turns_grpc, types = (
    importlib.import_module(f"interop.frozen.v1.{name}")
    for name in (
        "session_service_pb2",
        "session_service_pb2_grpc",
        "trace_service_pb2",
        "trace_service_pb2_grpc",
        "turn_service_pb2",
        "turn_service_pb2_grpc",
        "types_pb2",
    )
)

PATIENCE_S = 20.0
SESSION = "frozen"
LOOK = b'{"type":"function","name":"look","parameters":{"type":"object","properties":{}}}'

Told = dict[str, Any]


def open_session(channel: grpc.Channel) -> Told:
    """Creates a session and waits until its connection is there."""
    stub = sessions_grpc.SessionServiceStub(channel)
    created = stub.CreateSession(
        sessions.CreateSessionRequest(session_id=SESSION, config=config()), timeout=PATIENCE_S
    ).created
    slot = stub.Preconnect(sessions.PreconnectRequest(session_id=SESSION, wait=True), timeout=PATIENCE_S).slot
    return {"created": created, "slot": sessions.SlotState.Name(slot.state)}


def turn(channel: grpc.Channel) -> Told:
    """Asks, and reads the answer."""
    return answer(channel, "turn-1", message("hello"))


def tool_loop(channel: grpc.Channel) -> Told:
    """Asks, answers the call that comes, and reads on under the same turn id."""
    asked = message("What do you see?")
    first = answer(channel, "turn-2", asked)
    items = [types.Item(json=item.encode()) for item in first["items"]]
    output = types.FunctionCallOutput(call_id=json.loads(first["items"][-1])["call_id"], output="a lake")
    return {"call": first, "end": answer(channel, "turn-2", asked, *items, types.Item(function_call_output=output))}


def cancel(channel: grpc.Channel) -> Told:
    """Leaves a turn after its first words."""
    call = turns_grpc.TurnServiceStub(channel).StreamTurn(request("turn-3", message("go on")), timeout=PATIENCE_S)
    read_first_words(call)
    call.cancel()
    return {"code": call.code().name}


def cancel_turn(channel: grpc.Channel) -> Told:
    """Has the server end a turn, from beside it."""
    stub = turns_grpc.TurnServiceStub(channel)
    call = stub.StreamTurn(request("turn-4", message("go on")), timeout=PATIENCE_S)
    read_first_words(call)
    ended = stub.CancelTurn(turns.CancelTurnRequest(session_id=SESSION, turn_id="turn-4"), timeout=PATIENCE_S)
    return {"ended": len(ended.request_ids), **refusal(lambda: list(call))}


def refused(channel: grpc.Channel) -> Told:
    """Makes a call that the contract forbids."""
    call = turns_grpc.TurnServiceStub(channel).StreamTurn(request("turn-5"), timeout=PATIENCE_S)
    return refusal(lambda: list(call))


def missing(channel: grpc.Channel) -> Told:
    """Asks for a session that is not there."""
    stub = sessions_grpc.SessionServiceStub(channel)
    return refusal(lambda: stub.GetSession(sessions.GetSessionRequest(session_id="nowhere"), timeout=PATIENCE_S))


def inferences(channel: grpc.Channel) -> Told:
    """Lists what was asked of the provider."""
    listed = traces_grpc.TraceServiceStub(channel).ListInferences(
        traces.ListInferencesRequest(session_id=SESSION), timeout=PATIENCE_S
    )
    return {"statuses": sorted(traces.InferenceStatus.Name(found.status) for found in listed.inferences)}


def close(channel: grpc.Channel) -> Told:
    """Closes the session."""
    stub = sessions_grpc.SessionServiceStub(channel)
    stub.CloseSession(sessions.CloseSessionRequest(session_id=SESSION), timeout=PATIENCE_S)
    return {}


def newer(channel: grpc.Channel) -> Told:
    """Asks a server of a later contract."""
    return answer(channel, "newer", message("hello"))


def broken(channel: grpc.Channel) -> Told:
    """Asks a server that broke the contract."""
    return answer(channel, "broken-contract", message("hello"))


ACTS = (open_session, turn, tool_loop, cancel, cancel_turn, refused, missing, inferences, close, newer, broken)


def answer(channel: grpc.Channel, turn_id: str, *items: Any) -> Told:
    """Runs a turn: its members by name, how many the stub does not know, its text and items, how it ended."""
    stub = turns_grpc.TurnServiceStub(channel)
    responses = stub.StreamTurn(request(turn_id, *items), timeout=PATIENCE_S)
    events = [event for response in responses for event in response.events]
    members = [event.WhichOneof("event") for event in events]
    return {
        "sequences": [event.sequence for event in events],
        "members": [member for member in members if member is not None],
        "unknown": members.count(None),
        "text": "".join(event.text_delta.delta for event in events),
        "items": [event.item_done.item.json.decode() for event in events if event.HasField("item_done")],
        "response_id": events[-1].completed.response_id,
        "transport": next(event.attempt_started.transport for event in events if event.HasField("attempt_started")),
        "incremental": next(event.attempt_started.incremental for event in events if event.HasField("attempt_started")),
    }


def read_first_words(call: Any) -> None:
    """Reads until the model says something."""
    while not any(event.HasField("text_delta") for event in next(call).events):
        pass


def refusal(call: Any) -> Told:
    """The code and the reason of a call that fails."""
    try:
        call()
    except grpc.RpcError as error:
        trailing: Any = error.trailing_metadata()
        details = dict(trailing).get("grpc-status-details-bin", b"")
        info = error_details_pb2.ErrorInfo()
        for detail in status_pb2.Status.FromString(details).details:
            detail.Unpack(info)
        return {"code": error.code().name, "reason": info.reason}
    return {}


def request(turn_id: str, *items: Any) -> Any:
    """A call, with the config that makes its session where that is gone."""
    return turns.StreamTurnRequest(session_id=SESSION, session_config=config(), turn_id=turn_id, input=items)


def config() -> Any:
    """A session's config."""
    made = types.SessionConfig()
    made.request_defaults.model = "sim-large"
    made.request_defaults.tools.tools_json.append(LOOK)
    return made


def message(text: str) -> Any:
    """A user's message."""
    return types.Item(message=types.TextMessage(role="user", text=text))


def main() -> None:
    """The command."""
    address, *names = sys.argv[1:]
    acts = {act.__name__: act for act in ACTS}
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        told = {name: acts[name](channel) for name in names}
    ours = [name for name in sys.modules if name.partition(".")[0] == "warmline"]
    print(json.dumps({**told, "modules_of_today": ours}))


if __name__ == "__main__":
    main()
