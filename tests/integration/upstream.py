"""A stand-in for a gateway, to be killed at a chosen moment: run it with its address (`host:port`).

Unary calls answer with `<pid> <request id>`; what the request body says comes first.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from flower_nats.wire.methods import BY_NAME
from flower_nats.wire.request_id import REQUEST_ID


class Handler(grpc.GenericRpcHandler):
    def __init__(self, servicer: health.aio.HealthServicer) -> None:
        self._health = servicer
        self._methods = {method.path for method in BY_NAME.values()}
        self._streams = {method.path for method in BY_NAME.values() if method.streams}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method not in self._methods:
            return None
        if details.method in self._streams:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, body: bytes, context: Any) -> bytes:
        order, _, rest = body.partition(b" ")
        if order == b"die" and rest.startswith(str(os.getpid()).encode()):
            os.kill(os.getpid(), signal.SIGKILL)
        if order == b"hold":
            await asyncio.sleep(float(rest))
        if order == b"unready":
            await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        if order == b"fail":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
        if order == b"large":
            return b"x" * int(rest)
        request_id = dict(context.invocation_metadata())[REQUEST_ID]
        return f"{os.getpid()} {request_id} {len(body)}".encode()

    async def _stream(self, body: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(float(body))
        yield b"last"


async def main(address: str) -> None:
    servicer = health.aio.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    # As gateways do, which take a balancer's pings.
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.max_ping_strikes", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Handler(servicer),))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


asyncio.run(main(sys.argv[1]))
