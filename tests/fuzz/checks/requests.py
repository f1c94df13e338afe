"""What a caller sends: a request as protobuf, its items and settings as JSON."""

import json
from collections.abc import Callable

from google.protobuf.message import DecodeError

from warmline.v1 import turn_service_pb2 as pb
from warmline_server.core import delta
from warmline_server.core import request as requests
from warmline_server.core.errors import CallerError, ServiceError
from warmline_server.core.nesting import MAX_DEPTH
from warmline_server.observe import attributes
from warmline_server.rpc import translate

# The wire wraps items and settings in the request's own object, and input in an array.
WRAPPED = 2


def check_request(data: bytes) -> None:
    """A StreamTurnRequest of any bytes is refused by name, or makes a body and a frame that are JSON."""
    try:
        message = pb.StreamTurnRequest.FromString(data)
    except DecodeError:
        return
    try:
        check_message(message)
    except CallerError as refusal:
        assert refusal.field, f"a refusal without a field: {refusal}"
    except ServiceError:
        pass


def check_message(message: pb.StreamTurnRequest) -> None:
    """Reads a request as the service does. Raises: CallerError, ServiceError."""
    translate.name(message.session_id, "session_id")
    config = translate.config(message.session_config, "session_config")
    translate.identifier(message.turn_id, "turn_id")
    translate.metadata(message.turn_metadata_json)
    if message.HasField("max_duration"):
        assert translate.seconds(message.max_duration, "max_duration", zero_allowed=False) > 0
    overrides = translate.options(message.options, "options")
    extra = translate.extra_fields(message.request_json)
    settings = requests.merge(requests.base_settings("c", store=False), extra, config.defaults, overrides)
    request = requests.build(settings, translate.items(message.input, "input"))
    assert len(request.history) == len(request.input) * delta.DIGEST_BYTES
    body = requests.body(request, {"x-codex-window-id": "c:0"})
    frame = requests.frame(
        request, delta.plan(None, request.canonical_settings, request.history), {}, stream_field=True
    )
    for text in (body, frame):
        sent = json.loads(text)
        assert len(sent["input"]) == len(request.input)
        assert sent["stream"] is True
        assert "previous_response_id" not in sent
    for item in request.input:
        assert item in body, "an item left otherwise than it came"
    json.dumps(json.loads(body))  # within the depth that every decoder takes
    assert MAX_DEPTH + WRAPPED < 200
    baseline = delta.Baseline(request.canonical_settings, request.history, "resp_1")
    assert delta.plan(baseline, request.canonical_settings, request.history).start == len(request.input)
    for value in attributes._of_settings(body).values():
        assert not isinstance(value, int) or abs(value) < 2**63, "a number that telemetry cannot carry"


CHECKS: tuple[Callable[[bytes], None], ...] = (check_request,)
