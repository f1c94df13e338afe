"""A StreamTurnRequest, as protobuf."""

from fuzz.checks.requests import check_request
from warmline.v1 import turn_service_pb2 as pb
from warmline.v1 import types_pb2 as types

CHECK = check_request


def seeds() -> list[bytes]:
    call = b'{"type":"function_call","call_id":"c1","name":"look","arguments":"{}"}'
    options = types.RequestOptions(
        model="m",
        instructions="be brief",
        tools=types.ToolList(tools_json=[b'{"type":"function","name":"look","parameters":{"type":"object"}}']),
        tool_choice_json=b'"auto"',
        reasoning=types.Reasoning(effort="low", summary="auto"),
        text=types.TextOptions(verbosity="low", format_json=b'{"type":"text"}'),
        max_output_tokens=5,
    )
    config = types.SessionConfig(
        upstream="openai",
        conversation_id="123e4567-e89b-12d3-a456-426614174000",
        request_defaults=types.RequestOptions(model="m"),
        labels={"team": "a"},
    )
    message = types.TextMessage(role="user", text="hi")
    messages = [
        pb.StreamTurnRequest(session_id="s", options=options, input=[types.Item(message=message)]),
        pb.StreamTurnRequest(
            session_id="s",
            session_config=config,
            input=[
                types.Item(json=b'{"type":"message","role":"user","content":"cut \\ud83d"}'),
                types.Item(json=call),
                types.Item(function_call_output=types.FunctionCallOutput(call_id="c1", output="found")),
            ],
            request_json=b'{"temperature":1.0,"client_metadata":{"a":"b"},"prompt_cache_options":{}}',
            turn_metadata_json=b'{"a":1}',
        ),
    ]
    messages[1].max_duration.FromSeconds(5)
    return [message.SerializeToString() for message in messages]
