"""A client process with calls open, made to be killed: `python -m soak.leaver ADDRESS KEY…`. It prints a line when all
calls are sent. A key that ends in `-http` is of a session that uses HTTP alone.
"""

import asyncio
import sys

import grpc.aio

from soak.cancels import request
from warmline.v1 import turn_service_pb2_grpc as turns_grpc


async def main() -> None:
    async with grpc.aio.insecure_channel(sys.argv[1]) as channel:
        stub = turns_grpc.TurnServiceStub(channel)
        calls = [stub.StreamTurn(request(key, key, http=key.endswith("-http"))) for key in sys.argv[2:]]
        print("sent", flush=True)
        for call in calls:
            async for _ in call:
                pass


if __name__ == "__main__":
    asyncio.run(main())
