"""Whether a process is live and whether it can serve now, for balancers and orchestrators.

Live means that its event loop runs. Ready means that it can serve now: its dependencies have
answered lately, and it is not about to leave. A process that is not ready gets no new calls. A
process that is not live is restarted. `HealthServer` reports both over HTTP, and serves the
process's metrics.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress

from flower_nats.metrics import CONTENT_TYPE, Metric, by_label, exposition, gauge
from flower_nats.model.errors import FlowerNatsError

_REQUEST_SECONDS = 5.0
_LARGEST_REQUEST = 8192
_TEXT = "text/plain; charset=utf-8"


class CannotListen(FlowerNatsError):
    """The address cannot be listened on."""


class Heard:
    """A condition that something has answered lately."""

    def __init__(self, lately: float) -> None:
        self._lately = lately
        self._at = float("-inf")

    def note(self) -> None:
        """Note that it has just answered."""
        self._at = time.monotonic()

    def __call__(self) -> bool:
        """Whether it has answered within the last `lately` seconds."""
        return time.monotonic() - self._at < self._lately


class Readiness:
    """The conditions under which a process can serve, by name."""

    def __init__(self, conditions: Mapping[str, Callable[[], bool]]) -> None:
        self._conditions = conditions
        self._leaving = False

    def leave(self) -> None:
        """Be unready from now on: the process is about to end."""
        self._leaving = True

    @property
    def lacks(self) -> list[str]:
        """The conditions that fail; empty if the process is ready."""
        lacking = [name for name, holds in self._conditions.items() if not holds()]
        return ["leaving", *lacking] if self._leaving else lacking

    def metrics(self) -> list[Metric]:
        """Return readiness as numbers."""
        holds = {name: float(condition()) for name, condition in self._conditions.items()}
        return [
            gauge("ready", "Whether the process can serve now.", not self.lacks),
            gauge("leaving", "Whether the process is about to end.", self._leaving),
            by_label("dependency_ready", "Whether it has what it depends on.", "dependency", holds),
        ]


class HealthServer:
    """Answers `GET /livez` and `/readyz` (200, or 503 and the failed conditions), and `/metrics`.

    `collect` gives the metrics beside readiness; it has five seconds.
    """

    def __init__(
        self,
        readiness: Readiness,
        collect: Callable[[], Awaitable[Iterable[Metric]]] | None = None,
    ) -> None:
        self._readiness = readiness
        self._collect = collect
        self._server: asyncio.Server | None = None

    async def start(self, address: str) -> str:
        """Listen on `host:port` and return it, with the port in place of port 0.

        Raises CannotListen.
        """
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._serve, host.strip("[]"), int(port), limit=_LARGEST_REQUEST
            )
        except OSError as exc:
            raise CannotListen(f"Cannot listen on {address}: {exc}") from exc
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close: a client can hold a socket only for a few seconds."""
        try:
            with suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(await self._answer(head))
                    await writer.drain()
        finally:
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path not in {b"/livez", b"/readyz", b"/metrics"}:
            return _response("404 Not Found", "not found\n")
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", "GET only\n", headers="Allow: GET, HEAD\r\n")
        body = method == b"GET"
        if path == b"/metrics":
            return _response("200 OK", await self._metrics(), CONTENT_TYPE, body=body)
        lacks = self._readiness.lacks if path == b"/readyz" else []
        text = f"lacks {', '.join(lacks)}\n" if lacks else "ok\n"
        return _response("503 Service Unavailable" if lacks else "200 OK", text, body=body)

    async def _metrics(self) -> str:
        more = await self._collect() if self._collect is not None else ()
        return exposition([*self._readiness.metrics(), *more])


def _response(
    status: str, text: str, kind: str = _TEXT, headers: str = "", body: bool = True
) -> bytes:
    content = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
        f"{headers}\r\n"
    )
    return head.encode() + (content if body else b"")
