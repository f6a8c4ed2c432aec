"""ECDSA verification in a process of its own.

A P-384 verification takes 0.3 to 0.6 ms and holds the interpreter's lock, so a thread would stall the
event loop just as long. One child process verifies for a gateway; requests that arrive together
travel together.
"""

import asyncio
import itertools
import os
import struct
import sys
from functools import lru_cache
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flower_nats.model.errors import Unavailable

_HEAD = struct.Struct("<QHHH")
_VERDICT = struct.Struct("<Q?")
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_KEYS = 20_000
_READ = 1024 * 1024
_LONGEST = 0xFFFF


class _Child(asyncio.SubprocessProtocol):
    """The child process: its verdicts go straight to whoever waits, without a task in between."""

    def __init__(self) -> None:
        self.pending: dict[int, asyncio.Future[bool]] = {}
        self.ended = asyncio.get_running_loop().create_future()
        self._unread = b""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Hand out the verdicts that have come whole."""
        self._unread += data
        whole = len(self._unread) - len(self._unread) % _VERDICT.size
        for number, valid in _VERDICT.iter_unpack(self._unread[:whole]):
            future = self.pending.pop(number, None)
            if future is not None and not future.done():
                future.set_result(valid)
        self._unread = self._unread[whole:]

    def process_exited(self) -> None:
        """Tell those who wait that no verdict will come."""
        for future in self.pending.values():
            if not future.done():
                future.set_exception(Unavailable("the signature verifier died"))
        self.ended.set_result(None)


class Verifier:
    """Verifies signatures in a child process, which it starts again if it dies."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._transport: asyncio.SubprocessTransport | None = None
        self._stdin: asyncio.WriteTransport | None = None
        self._starting = asyncio.Lock()
        self._numbers = itertools.count()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None if there is none."""
        return self._transport.get_pid() if self._transport is not None else None

    async def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is `message` signed (ECDSA, SHA-256) by this PEM key's owner.

        False too if the key is no elliptic-curve key. Raises `Unavailable` if the child died.
        """
        if max(len(public_key), len(message), len(signature)) > _LONGEST:
            return False
        if self._child is None or self._child.ended.done():
            await self._start()
        assert self._child is not None
        assert self._stdin is not None
        number = next(self._numbers)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._child.pending[number] = future
        head = _HEAD.pack(number, len(public_key), len(message), len(signature))
        self._stdin.write(head + public_key + message + signature)
        return await future

    async def close(self) -> None:
        """End the child."""
        if self._child is not None and self._stdin is not None:
            self._stdin.close()
            await self._child.ended

    async def _start(self) -> None:
        async with self._starting:
            if self._child is not None and not self._child.ended.done():
                return
            self._transport, self._child = await asyncio.get_running_loop().subprocess_exec(
                _Child, sys.executable, "-m", "flower_nats_gateway.verifier", stderr=None
            )
            self._stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))


@lru_cache(maxsize=_KEYS)
def _load(public_key: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        key = load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def check(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the signature is good; the work of the child."""
    key = _load(public_key)
    if key is None:
        return False
    try:
        key.verify(signature, message, _ALGORITHM)
    except InvalidSignature:
        return False
    return True


def _serve() -> None:
    """Verify what comes on stdin until it closes, which it does when the gateway dies."""
    unread = b""
    while data := os.read(0, _READ):
        verdicts, unread = _answer(unread + data)
        os.write(1, verdicts)


def _answer(data: bytes) -> tuple[bytes, bytes]:
    """Verify the whole requests at the start of `data`; return their verdicts and the rest."""
    verdicts = bytearray()
    at = 0
    while at + _HEAD.size <= len(data):
        number, *lengths = _HEAD.unpack_from(data, at)
        end = at + _HEAD.size + sum(lengths)
        if end > len(data):
            break
        key_at = at + _HEAD.size
        message_at = key_at + lengths[0]
        signature_at = message_at + lengths[1]
        valid = check(
            data[key_at:message_at], data[message_at:signature_at], data[signature_at:end]
        )
        verdicts += _VERDICT.pack(number, valid)
        at = end
    return bytes(verdicts), data[at:]


if __name__ == "__main__":
    _serve()
