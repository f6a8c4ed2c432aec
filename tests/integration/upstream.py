"""A stand-in for a gateway that a test can kill at a chosen moment.

Its arguments are its address for gRPC and, optionally, its address for HTTP (`host:port`). It
answers unary calls with `<pid> <request id> <bytes of the request>`, after the action that the
body names.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from flower_nats.wire.methods import BY_NAME
from flower_nats.wire.request_id import REQUEST_ID


class State:
    """The state that both wires share, and whether this gateway is ready."""

    def __init__(self) -> None:
        self.health = health.aio.HealthServicer()
        self.is_ready = True

    async def set_ready(self, is_ready: bool) -> None:
        self.is_ready = is_ready
        status = health_pb2.HealthCheckResponse
        await self.health.set("", status.SERVING if is_ready else status.NOT_SERVING)

    async def answer(self, body: bytes, request_id: str) -> bytes:
        """Do the action that a body names, and answer."""
        order, _, rest = body.partition(b" ")
        if order == b"die" and rest.startswith(str(os.getpid()).encode()):
            os.kill(os.getpid(), signal.SIGKILL)
        if order == b"hold":
            await asyncio.sleep(float(rest))
        if order == b"unready":
            await self.set_ready(False)
        if order == b"large":
            return b"x" * int(rest)
        return f"{os.getpid()} {request_id} {len(body)}".encode()


class Handler(grpc.GenericRpcHandler):
    def __init__(self, state: State) -> None:
        self._state = state
        methods = BY_NAME.values()
        self._methods = {path for method in methods for path in method.grpc_paths}
        self._streams = {path for one in methods if one.streams for path in one.grpc_paths}

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        if details.method not in self._methods:
            return None
        if details.method in self._streams:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, body: bytes, context: Any) -> bytes:
        if body.startswith(b"fail"):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no")
        return await self._state.answer(body, dict(context.invocation_metadata())[REQUEST_ID])

    async def _stream(self, body: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.sleep(float(body))
        yield b"last"


class App:
    """The same as an ASGI application."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._streams = {one.http_path for one in BY_NAME.values() if one.streams}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/health":
            await _send(send, 200 if self._state.is_ready else 503, b"")
            return
        pieces = []
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return
            pieces.append(event["body"])
            if not event["more_body"]:
                break
        body = b"".join(pieces)
        if scope["path"] in self._streams:
            await _send(send, 200, b"first", more=True)
            await asyncio.sleep(float(body))
            await send({"type": "http.response.body", "body": b"last"})
        elif body.startswith(b"fail "):
            await _send(send, int(body[5:]), b'{"detail": "no"}')
        else:
            request_id = dict(scope["headers"])[REQUEST_ID.encode()].decode()
            await _send(send, 200, await self._state.answer(body, request_id))


async def _send(send: Any, status: int, body: bytes, *, more: bool = False) -> None:
    headers = [] if more else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def main(address: str, http_address: str | None = None) -> None:
    state = State()
    await state.set_ready(True)
    # Gateways also accept a balancer's pings.
    options = [("grpc.max_receive_message_length", -1), ("grpc.http2.max_ping_strikes", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((Handler(state),))
    health_pb2_grpc.add_HealthServicer_to_server(state.health, server)
    server.add_insecure_port(address)
    await server.start()
    if http_address is not None:
        host, _, port = http_address.rpartition(":")
        app: Any = App(state)
        config = uvicorn.Config(
            app,
            host,
            int(port),
            lifespan="off",
            log_level="error",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        await uvicorn.Server(config).serve()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
