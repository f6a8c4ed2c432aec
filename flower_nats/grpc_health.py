"""Health over gRPC (`grpc.health.v1`), for orchestrators that use it; `health` serves HTTP."""

import asyncio

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from flower_nats.health import CannotListen, Readiness

_LOOK_EVERY = 0.5
"""Seconds between two looks at whether the process is ready."""


class GrpcHealthServer:
    """Answers health checks about the whole server: whether its process can serve now."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._servicer = health.aio.HealthServicer()
        self._server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, self._server)
        self._telling: asyncio.Task[None] | None = None

    async def start(self, address: str) -> None:
        """Answer on `host:port`, without TLS. Raises `CannotListen`."""
        try:
            self._server.add_insecure_port(address)
        except RuntimeError as exc:
            raise CannotListen(f"Cannot listen on {address}: {exc}") from exc
        await tell(self._servicer, self._readiness)
        await self._server.start()
        self._telling = asyncio.create_task(self._tell_forever(), name="grpc health")

    async def stop(self) -> None:
        """Stop answering."""
        if self._telling is not None:
            self._telling.cancel()
            await self._server.stop(None)

    async def _tell_forever(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            await tell(self._servicer, self._readiness)


async def tell(servicer: health.aio.HealthServicer, readiness: Readiness) -> None:
    """Have a servicer report whether its process is ready."""
    status = health_pb2.HealthCheckResponse
    await servicer.set("", status.NOT_SERVING if readiness.lacks else status.SERVING)
