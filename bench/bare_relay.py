"""The floor of this stack: the smallest grpc.aio and websockets relay that does the job, and does nothing else.

Method /bare.Relay/Turn (unary request, server stream), raw bytes both ways: the request goes upstream as one text
frame, every frame of the upstream becomes one gRPC message, and the stream ends after `response.completed`. Sockets are
kept and reused. No sessions, no parsing, no tracing, no errors: what it costs, everything built on these libraries
costs. It runs on the same event loop as the server and offers the same compression. The benchmark divides by it, so it
stays as it is.

    python -m bench.bare_relay UPSTREAM_WS_URL
"""

import sys
from collections.abc import Awaitable, Callable

import grpc
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

TERMINAL = b'"type":"response.completed"'
Context = grpc.aio.ServicerContext[bytes, bytes]


# What the server offers too, with the same windows; the upstream may decline.
DEFLATE = ClientPerMessageDeflateFactory(client_max_window_bits=12, compress_settings={"memLevel": 5})


def relay(upstream_url: str) -> Callable[[bytes, Context], Awaitable[None]]:
    """The one method's handler."""
    idle: list[ClientConnection] = []

    async def turn(request: bytes, context: Context) -> None:
        if idle:
            socket = idle.pop()
        else:
            socket = await connect(
                upstream_url,
                compression=None,
                extensions=[DEFLATE],
                max_size=None,
                ping_interval=None,
                proxy=None,
                open_timeout=None,
            )
        await socket.send(request, text=True)
        while True:
            frame = await socket.recv(decode=False)
            await context.write(frame)
            if TERMINAL in frame[:200].replace(b" ", b""):
                idle.append(socket)
                return

    return turn


async def main(upstream_url: str) -> None:
    """Serves on a free port, which it prints, until it is ended."""
    turn = relay(upstream_url)
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_stream_rpc_method_handler(turn)
    # Without these caps the library turns calls away when many start at once.
    limits = [("grpc.server.max_pending_requests", 100_000), ("grpc.server.max_pending_requests_hard_limit", 200_000)]
    server = grpc.aio.server(options=limits)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Relay", {"Turn": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(sys.argv[1]))
