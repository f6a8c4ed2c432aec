"""How stock clients call: what they retry, what ends them (flwr 1.33, 1.42 `supercore/retry`)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from flower_nats.model.errors import Outcome
from flower_nats.wire.methods import BY_NAME
from harness.balancer import Line
from harness.channels import CHANNELS, Channel, Metadata, Refused, WireName
from harness.flower_environments import LAST_OVER_GRPC, VERSIONS

_LONGEST_DELAY = 20.0
_UNAVAILABLE_DELAY = (1.0, 10.0)

_COMPONENTS = {"Fleet": "SuperNode", "Runtime": "flwr-serverapp", "Control": "flwr CLI"}

_FLWR: Mapping[WireName, str] = {"grpc": LAST_OVER_GRPC, "http": VERSIONS[-1]}
"""The flwr release of the clients on each wire here."""


def _version_metadata(wire: WireName, service: str) -> Metadata:
    """Return the metadata by which stock clients of an API say their version."""
    return (
        ("flwr-package-name", "flwr"),
        ("flwr-package-version", _FLWR[wire]),
        ("flwr-component-name", _COMPONENTS[service]),
    )


_PASSING: Mapping[WireName, frozenset[Outcome | None]] = {
    "grpc": frozenset({Outcome.UNAVAILABLE}),
    # Not 502, which ends clients before flwr 1.41.
    "http": frozenset({Outcome.UNAVAILABLE, Outcome.DEADLINE_EXCEEDED}),
}
"""Outcomes after which clients try again, for ever."""


class RunNotRunning(Exception):
    """The answer was PERMISSION_DENIED, or 403: the run is not running (any more)."""


class ClientDied(Exception):
    """The answer is one that ends a stock client."""


@dataclass(frozen=True)
class Made:
    """A call as its client saw it, with all its tries. Times are of `time.monotonic`."""

    method: str
    began: float
    ended: float
    tries: int
    answered: bool
    """False if the call was given up or refused."""


def delays() -> Iterator[float]:
    """Seconds to wait before each further try: full jitter of 1, 2, 4, … 20."""
    ceiling = 1.0
    while True:
        yield random.uniform(0, ceiling)
        ceiling = min(2 * ceiling, _LONGEST_DELAY)


class Wire:
    """One client's channel to one API: passing errors are retried for ever, all others are fatal.

    It goes through a line of a balancer, or straight to an address (`host:port`). `watch` is called
    for every call except streams.
    """

    def __init__(
        self,
        way: Line | str,
        watch: Callable[[Made], None] | None = None,
        name: WireName = "grpc",
    ) -> None:
        self.name: WireName = name if isinstance(way, str) else way.wire
        self.retries = 0
        self._way = way
        self._watch = watch
        self._channel = self._connect()

    @property
    def line(self) -> Line:
        """The line that the channel goes through."""
        assert isinstance(self._way, Line)
        return self._way

    async def reconnect(self) -> None:
        """Go on over a new connection, as a new process does."""
        former, self._channel = self._channel, self._connect()
        await former.close()

    def _connect(self) -> Channel:
        address = self._way if isinstance(self._way, str) else self._way.address
        return CHANNELS[self.name](address)

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
        """Call an RPC as stock clients do.

        Only heartbeats of SuperNodes have a `timeout` of their own. Over HTTP, such a call is not
        retried here.

        Raises `RunNotRunning`, `ClientDied`, or `TimeoutError` if the caller must try again later.
        """
        began, tries, answered = time.monotonic(), 0, False
        try:
            for delay in delays():
                tries += 1
                try:
                    answer = await self._try(service, method, request, metadata, timeout)
                    answered = True
                    return answer
                except Refused as exc:
                    if exc.outcome not in _PASSING[self.name]:
                        raise _fatal(exc) from exc
                    if self.name == "http" and timeout is not None:
                        raise TimeoutError(method) from exc
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
        """Call an RPC without retries. Raises as `Channel.unary`."""
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
        metadata = (*_version_metadata(self.name, service), *metadata)
        body = request.SerializeToString(deterministic=True)
        return rpc.response.FromString(await self._channel.unary(rpc, body, metadata, timeout))

    def _tell(self, call: Made) -> None:
        if self._watch is not None:
            self._watch(call)

    async def stream(
        self, service: str, method: str, request: ProtoMessage, timeout: float
    ) -> AsyncGenerator[Any, None]:
        """Call a streaming RPC. Raises `Refused`; over HTTP there is no time limit."""
        rpc, metadata = BY_NAME[(service, method)], _version_metadata(self.name, service)
        body = request.SerializeToString(deterministic=True)
        async with aclosing(self._channel.stream(rpc, body, metadata, timeout)) as answers:
            async for answer in answers:
                yield rpc.response.FromString(answer)


async def beat_forever(beat: Callable[[], Awaitable[None]]) -> None:
    """Send heartbeats as stock's HeartbeatSender does: a late one is retried with back-off."""
    while True:
        for delay in delays():
            try:
                await beat()
                break
            except TimeoutError:
                await asyncio.sleep(delay)
        await asyncio.sleep(25.0 * random.uniform(0.7, 0.9))


async def when_available(object_id: str, pull: Callable[[str], Awaitable[Any]]) -> bytes:
    """Pull an object as stock clients do: retry while it is announced but not there yet.

    Raises LookupError if the object is not known.
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


def _fatal(exc: Refused) -> Exception:
    if exc.outcome is Outcome.PERMISSION_DENIED:
        return RunNotRunning(exc.text)
    return ClientDied(str(exc))
