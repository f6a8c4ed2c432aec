"""StreamLogs in a balancer's place: a stream that outlives the gateways that feed it.

A balancer cannot mend a stream that has begun. So behind one a gateway ends it with each answer
(`control.py`), and stock's `flwr log` calls again from where it was, half a second later. The relay
stands beside the balancer, keeps its client's stream open, and calls again itself, at once.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health

from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from flower_nats_gateway.transports.grpc.listener import Listener, listen

_STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]

_PAUSE = 0.1
"""Seconds before it calls again after a stream that gave nothing, as those of a gateway that drains."""

_LONGEST_REQUEST = 64 * 1024

_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    # By default a second at first, and up to two minutes: for another machine, not for our balancer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class LogRelay:
    """Serves StreamLogs at `address` from gateways behind a balancer at `gateways`.

    Both are `host:port`, without TLS: they are for the balancer on this machine alone.
    """

    def __init__(self, address: str, gateways: str) -> None:
        self._address = address
        self._gateways = gateways
        self._listener: Listener | None = None
        self._channel: grpc.aio.Channel | None = None

    async def start(self) -> None:
        """Listen. Raises `CannotListen`."""
        self._channel = grpc.aio.insecure_channel(self._gateways, options=_OPTIONS)
        self._stream: Any = self._channel.unary_stream(_STREAM_LOGS.path)
        always = health.aio.HealthServicer()
        self._listener = await listen(
            self._address, [_Handler(self.follow)], always, longest_body=_LONGEST_REQUEST
        )

    async def stop(self) -> None:
        """End all streams."""
        if self._listener is not None:
            await self._listener.server.stop(None)
        if self._channel is not None:
            await self._channel.close()

    async def follow(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        """Give a run's log until a gateway says that this is all, or refuses."""
        while True:
            answer = b""
            try:
                # A balancer that was started again a moment ago is waited for.
                async for answer in self._stream(request, wait_for_ready=True):
                    yield answer
                return
            except grpc.aio.AioRpcError as exc:
                # What has answered and then breaks is a gateway that has died.
                if not answer and exc.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                    await context.abort(exc.code(), exc.details() or "")
            if answer:
                request = _going_on(request, answer)
            else:
                await asyncio.sleep(_PAUSE)


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, follow: Any) -> None:
        self._handler: Any = grpc.unary_stream_rpc_method_handler(follow)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the one handler there is."""
        return self._handler if handler_call_details.method == _STREAM_LOGS.path else None


def _going_on(request: bytes, answer: bytes) -> bytes:
    """Return the request for what follows an answer."""
    following = control.StreamLogsRequest.FromString(request)
    following.after_timestamp = control.StreamLogsResponse.FromString(answer).latest_timestamp
    return following.SerializeToString()
