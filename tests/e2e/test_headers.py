"""What the upstream learns of who asks: handshakes, POSTs and frames, field by field."""

import pytest

from e2e.line import answer, open_line
from warmline.v1 import types_pb2


@pytest.mark.conformance("C-040")
async def test_a_request_is_a_flat_create_frame_on_a_socket_that_names_its_session() -> None:
    async with open_line() as line, line.session() as session:
        result = await answer(session.turn("hello"))
        (handshake,), (request,) = line.sim.handshakes, line.sim.requests
        assert request.body["type"] == "response.create"
        assert "response" not in request.body
        assert request.body["model"] == "sim-large"
        assert request.body["stream"] is True
        assert [item["content"][0]["text"] for item in request.body["input"]] == ["hello"]
        assert handshake.headers["openai-beta"] == "responses_websockets=2026-02-06"
        # D-17: the connection's own id, which the provider can search.
        assert handshake.headers["x-client-request-id"] == result.connection_id
        for name in ("session_id", "session-id", "thread-id"):
            assert handshake.headers[name] == result.conversation_id


@pytest.mark.conformance("C-041")
async def test_the_websocket_is_used_where_the_upstream_supports_it_without_a_flag() -> None:
    async with open_line() as line, line.session(config=types_pb2.SessionConfig()) as session:
        result = await answer(session.turn("hello"))
        assert result.transport == "WEBSOCKET"
        assert line.sim.posts() == []
