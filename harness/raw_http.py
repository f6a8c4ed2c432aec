"""HTTP/1.1 by hand, for bytes that no library would send."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from flower_nats.wire.methods import BY_NAME
from harness.channels import Metadata
from harness.children import PATIENCE

_END_OF_HEAD = b"\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Answer:
    """One answer of a server."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """Its body as the JSON of a refusal."""
        said: dict[str, Any] = json.loads(self.body)
        return said


class Connection:
    """A client's connection, on which it may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _tb: TracebackType | None,
    ) -> None:
        self.writer.transport.abort()

    @property
    def port(self) -> int:
        """The client's own port."""
        port: int = self.writer.get_extra_info("sockname")[1]
        return port

    async def send(self, *parts: bytes) -> None:
        """Send bytes, and wait until the system has taken them."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self, within: float = PATIENCE) -> Answer:
        """Read one answer. Raises EOFError (IncompleteReadError) or ConnectionError if none comes."""
        async with asyncio.timeout(within):
            head = (await self.reader.readuntil(_END_OF_HEAD)).decode("latin-1")
            first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            status = int(first.split(" ")[1])
            body = b"" if status == 100 else await self._body(headers)
        return Answer(status, headers, body)

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self.reader.readexactly(int(headers["content-length"]))
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.read()
        body = b""
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def until_closed(self, within: float = PATIENCE) -> str:
        """Wait until the server has closed the connection; return how: `end` or `reset`."""
        async with asyncio.timeout(within):
            try:
                while await self.reader.read(64 * 1024):
                    pass
            except ConnectionError:
                return "reset"
        return "end"

    def close(self) -> None:
        """Close the connection in good order."""
        self.writer.close()

    def reset(self) -> None:
        """Close the connection with a reset."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.writer.transport.abort()


async def connect(address: str, tls: ssl.SSLContext | None = None) -> Connection:
    """Connect to `host:port`."""
    host, _, port = address.rpartition(":")
    name = host if tls is not None else None
    return Connection(
        *await asyncio.open_connection(
            host, int(port), ssl=tls, server_hostname=name, limit=1024 * 1024
        )
    )


def head_of(
    api: str, method: str, metadata: Metadata = (), length: int | None = None, *more: str
) -> bytes:
    """Return the head of a call as stock clients send it, with `more` lines in it."""
    lines = [
        f"POST {BY_NAME[(api, method)].http_path} HTTP/1.1",
        "host: gateway",
        "content-type: application/protobuf",
        *([] if length is None else [f"content-length: {length}"]),
        *header_lines(metadata),
        *more,
    ]
    return "\r\n".join(lines).encode() + _END_OF_HEAD


def header_lines(metadata: Metadata) -> Iterable[str]:
    """Return gRPC metadata as lines of a head."""
    for key, value in metadata:
        text = value if isinstance(value, str) else base64.b64encode(value).decode()
        yield f"{key.removesuffix('-bin')}: {text}"
