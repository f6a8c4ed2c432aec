"""How stock clients call: what they retry and what they die of (flwr 1.33 `supercore/retry`)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from google.protobuf.message import Message as ProtoMessage

from flower_nats.wire.methods import BY_NAME
from tests.harness.balancer import Line

Metadata = Sequence[tuple[str, str | bytes]]

_LONGEST_DELAY = 20.0
_UNAVAILABLE_DELAY = (1.0, 10.0)
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Without its own pool, gRPC would put all clients of a process on one TCP connection.
    ("grpc.use_local_subchannel_pool", 1),
]

VERSIONS: dict[str, Metadata] = {
    service: RuntimeVersionMetadata.from_local_component(component).append_to_grpc_metadata(None)
    for service, component in (
        ("Fleet", "SuperNode"),
        ("Runtime", "flwr-serverapp"),
        ("Control", "flwr CLI"),
    )
}
"""The metadata by which stock clients of each API say their version."""


class RunNotRunning(Exception):
    """The answer was PERMISSION_DENIED: the run is not running (any more)."""


class ClientDied(Exception):
    """The answer was one of which a stock client dies."""


@dataclass(frozen=True)
class Made:
    """A call as its client saw it, with all its tries. Times are of `time.monotonic`."""

    method: str
    began: float
    ended: float
    tries: int
    answered: bool
    """False if it was given up or refused."""


def delays() -> Iterator[float]:
    """Seconds to wait before each further try: full jitter of 1, 2, 4, … 20."""
    ceiling = 1.0
    while True:
        yield random.uniform(0, ceiling)
        ceiling = min(2 * ceiling, _LONGEST_DELAY)


class Wire:
    """One client's channel to one API: UNAVAILABLE is tried again for ever, all else is fatal.

    It goes through a line of a balancer, or straight to an address (`host:port`). `watch` is told
    of every call but streams.
    """

    def __init__(self, way: Line | str, watch: Callable[[Made], None] | None = None) -> None:
        self.retries = 0
        self._way = way
        self._watch = watch
        self._channel = self._connect()

    @property
    def line(self) -> Line:
        """The line it goes through."""
        assert isinstance(self._way, Line)
        return self._way

    async def reconnect(self) -> None:
        """Go on over another connection, as another process does."""
        former, self._channel = self._channel, self._connect()
        await former.close()

    def _connect(self) -> grpc.aio.Channel:
        address = self._way if isinstance(self._way, str) else self._way.address
        return grpc.aio.insecure_channel(address, options=_OPTIONS)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def call(
        self,
        service: str,
        method: str,
        request: ProtoMessage,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> Any:
        """Call an RPC as wrapped stubs of stock clients do.

        Raises `RunNotRunning`, `ClientDied`, or `TimeoutError` after its own `timeout`.
        """
        began, tries, answered = time.monotonic(), 0, False
        try:
            for delay in delays():
                tries += 1
                try:
                    answer = await self._try(service, method, request, metadata, timeout)
                    answered = True
                    return answer
                except grpc.aio.AioRpcError as exc:
                    if exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout is not None:
                        raise TimeoutError(method) from exc
                    if exc.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise _fatal(method, exc) from exc
                self.retries += 1
                await asyncio.sleep(delay)
        finally:
            self._tell(Made(method, began, time.monotonic(), tries, answered))

    async def call_once(
        self,
        service: str,
        method: str,
        request: ProtoMessage,
        metadata: Metadata = (),
        timeout: float | None = None,
    ) -> Any:
        """Call an RPC and raise what comes."""
        began, answered = time.monotonic(), False
        try:
            answer = await self._try(service, method, request, metadata, timeout)
            answered = True
            return answer
        finally:
            self._tell(Made(method, began, time.monotonic(), 1, answered))

    async def _try(
        self,
        service: str,
        method: str,
        request: ProtoMessage,
        metadata: Metadata,
        timeout: float | None,
    ) -> Any:
        rpc = BY_NAME[(service, method)]
        multicallable: Any = self._channel.unary_unary(
            rpc.path,
            request_serializer=_serialize,
            response_deserializer=cast(Callable[[bytes], Any], rpc.response.FromString),
        )
        metadata = (*VERSIONS[service], *metadata)
        return await multicallable(request, metadata=metadata, timeout=timeout)

    def _tell(self, call: Made) -> None:
        if self._watch is not None:
            self._watch(call)

    def stream(self, service: str, method: str, request: ProtoMessage, timeout: float) -> Any:
        """Call a streaming RPC."""
        rpc = BY_NAME[(service, method)]
        multicallable: Any = self._channel.unary_stream(
            rpc.path,
            request_serializer=_serialize,
            response_deserializer=cast(Callable[[bytes], Any], rpc.response.FromString),
        )
        return multicallable(request, metadata=VERSIONS[service], timeout=timeout)


async def beat_forever(beat: Callable[[], Awaitable[None]]) -> None:
    """Send heartbeats as stock's HeartbeatSender does: what is late is tried again, with back-off."""
    while True:
        for delay in delays():
            try:
                await beat()
                break
            except TimeoutError:
                await asyncio.sleep(delay)
        await asyncio.sleep(25.0 * random.uniform(0.7, 0.9))


async def when_available(object_id: str, pull: Callable[[str], Awaitable[Any]]) -> bytes:
    """Pull an object as stock clients do: one that is announced and not there yet is tried again.

    Raises LookupError for one that is not known.
    """
    delay, longest = _UNAVAILABLE_DELAY
    while True:
        answer = await pull(object_id)
        if not answer.object_found:
            raise LookupError(f"object {object_id} not found")
        if answer.object_available:
            return bytes(answer.object_content)
        await asyncio.sleep(delay * random.uniform(0.8, 1.2))
        delay = min(2 * delay, longest)


async def in_parallel(items: Iterable[str], work: Callable[[str], Awaitable[None]]) -> None:
    """Do `work` for every item in order, two at a time, as stock clients move objects."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    workers = [asyncio.create_task(worker()) for _ in range(2)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()


def _serialize(request: ProtoMessage) -> bytes:
    return request.SerializeToString()


def _fatal(method: str, exc: grpc.aio.AioRpcError) -> Exception:
    if exc.code() is grpc.StatusCode.PERMISSION_DENIED:
        return RunNotRunning(exc.details())
    return ClientDied(f"{method}: {exc.code()} {exc.details()}")
