"""Whether a process lives and whether it can serve now, for balancers and orchestrators.

Live means that its event loop runs. Ready means that it can serve now: what it depends on has
answered lately, and it is not about to leave. Who is not ready gets no new calls; who is not live
gets started again. `HealthServer` says both over HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from flower_nats.model.errors import FlowerNatsError

_REQUEST_SECONDS = 5.0
_LARGEST_REQUEST = 8192


class CannotListen(FlowerNatsError):
    """The address cannot be listened on."""


class Heard:
    """When something has answered, as a condition that it has done so lately."""

    def __init__(self, lately: float) -> None:
        self._lately = lately
        self._at = float("-inf")

    def note(self) -> None:
        """It has answered just now."""
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
        """What is not as it should be; nothing when the process is ready."""
        lacking = [name for name, holds in self._conditions.items() if not holds()]
        return ["leaving", *lacking] if self._leaving else lacking


class HealthServer:
    """Answers `GET /livez` and `GET /readyz` with 200, or 503 and what is lacking."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
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
            raise CannotListen(f"{address} cannot be listened on: {exc}") from exc
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close: nobody can hold more than a socket for a few seconds."""
        try:
            with suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
                async with asyncio.timeout(_REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path not in {b"/livez", b"/readyz"}:
            return _response("404 Not Found", "not found")
        if method not in {b"GET", b"HEAD"}:
            return _response("405 Method Not Allowed", "GET only", b"Allow: GET, HEAD\r\n")
        lacks = self._readiness.lacks if path == b"/readyz" else []
        text = f"lacks {', '.join(lacks)}" if lacks else "ok"
        status = "503 Service Unavailable" if lacks else "200 OK"
        return _response(status, text, body=method == b"GET")


def _response(status: str, text: str, headers: bytes = b"", body: bool = True) -> bytes:
    content = f"{text}\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(content)}\r\nCache-Control: no-store\r\nConnection: close\r\n"
    )
    return head.encode() + headers + b"\r\n" + (content if body else b"")
