"""What interceptors do to a handler: the same handler with something around its behaviour."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

Behaviour = Callable[[Any, Any], Awaitable[Any]]


def wrapped(handler: Any, wrap: Callable[[Any], Behaviour]) -> Any:
    """The handler of an RPC that streams its responses or is unary, with `wrap(behaviour)` in its behaviour's place."""
    coders = {
        "request_deserializer": handler.request_deserializer,
        "response_serializer": handler.response_serializer,
    }
    if handler.request_streaming:
        return grpc.stream_stream_rpc_method_handler(wrap(handler.stream_stream), **coders)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(wrap(handler.unary_stream), **coders)
    return grpc.unary_unary_rpc_method_handler(wrap(handler.unary_unary), **coders)
