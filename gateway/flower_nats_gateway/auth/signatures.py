"""ECDSA verification in a process of its own.

A P-384 verification takes 0.2 to 0.6 ms and holds the interpreter's lock, so a thread would stall
the event loop just as long. One child process verifies for a gateway. Requests that arrive together
are sent together.
"""

import asyncio
import hashlib
import itertools
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import cast

from awscrt.crypto import EC
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from flower_nats.model.errors import Unavailable
from flower_nats.model.node_key import is_node_key

_HEAD = struct.Struct("<QHHH")
_VERDICT = struct.Struct("<Q?")
_ALGORITHM = ec.ECDSA(hashes.SHA256())
_KEYS = 20_000
_READ = 1024 * 1024
_LONGEST = 256
"""Bytes of a signature, and of the signed time. A P-521 signature has at most 139."""


class _Child(asyncio.Protocol):
    """The child process. Its results go straight to the waiting calls, without another task."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self.ended = asyncio.get_running_loop().create_future()
        self._pending: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count()
        self._outgoing: list[bytes] = []
        self._unread = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to the child."""
        self._transport = cast(asyncio.Transport, transport)

    @property
    def is_there(self) -> bool:
        """Whether the child can be asked."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, public_key: bytes, message: bytes, signature: bytes) -> asyncio.Future[bool]:
        """Send a request; return a future for the result."""
        number = next(self._numbers)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        head = _HEAD.pack(number, len(public_key), len(message), len(signature))
        if not self._outgoing:
            # All requests of one turn of the event loop are sent together.
            asyncio.get_running_loop().call_soon(self._send)
        self._outgoing += (head, public_key, message, signature)
        return future

    def _send(self) -> None:
        # If the connection is already lost, its reader tells the waiting callers.
        if self._transport is not None and self.is_there:
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def data_received(self, data: bytes) -> None:
        """Pass on the results that are complete."""
        self._unread += data
        whole = len(self._unread) - len(self._unread) % _VERDICT.size
        for number, valid in _VERDICT.iter_unpack(self._unread[:whole]):
            future = self._pending.pop(number, None)
            if future is not None and not future.done():
                future.set_result(valid)
        self._unread = self._unread[whole:]

    def connection_lost(self, _reason: Exception | None) -> None:
        """Fail the waiting calls, because no result will come."""
        for future in self._pending.values():
            if not future.done():
                future.set_exception(Unavailable("the signature verifier died"))
        self.process.kill()
        self.process.wait()
        self.ended.set_result(None)

    def close(self) -> None:
        """End the child."""
        assert self._transport is not None
        self._transport.close()


class Verifier:
    """Verifies signatures in a child process, which is restarted if it dies."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None if there is none."""
        return self._child.process.pid if self._child is not None else None

    async def start(self) -> None:
        """Start the child, if it does not run."""
        async with self._starting:
            if self._child is None or not self._child.is_there:
                self._child = await _start()

    async def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is valid for `message` (ECDSA, SHA-256) and this PEM key.

        It is also False for a key that SuperNodes may not have. Raises `Unavailable` if the child
        died.
        """
        if not is_node_key(public_key) or max(len(message), len(signature)) > _LONGEST:
            return False
        if self._child is None or not self._child.is_there:
            await self.start()
        assert self._child is not None
        return await self._child.ask(public_key, message, signature)

    async def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._child.close()
            await self._child.ended


async def _start() -> _Child:
    ours, its = socket.socketpair()
    with its:
        process = await asyncio.to_thread(_spawn, its)
    loop = asyncio.get_running_loop()
    _, child = await loop.create_connection(lambda: _Child(process), sock=ours)
    return child


def _spawn(line: socket.socket) -> "subprocess.Popen[bytes]":
    # Not started by the event loop: uvloop runs Python in the child before the verifier starts.
    # With gRPC's threads, this sometimes ends the child.
    command = [sys.executable, "-m", "flower_nats_gateway.auth.signatures"]
    return subprocess.Popen(command, stdin=line.fileno(), stdout=line.fileno())


@lru_cache(maxsize=_KEYS)
def _load(public_key: bytes) -> Callable[[bytes, bytes], bool] | None:
    """Return the verifier of a key, None if the key is on no curve."""
    try:
        key = load_pem_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return None
    if isinstance(key.curve, ec.SECP384R1):
        return _quickly(key)
    return _with_any_curve(key)


def _quickly(key: ec.EllipticCurvePublicKey) -> Callable[[bytes, bytes], bool]:
    # For the curve of nearly every SuperNode, AWS-LC takes 0.16 ms and OpenSSL 0.28 ms. The
    # difference is a fifteenth of the CPU of a round.
    quick = EC.new_key_from_der_data(
        key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )
    return lambda message, signature: quick.verify(hashlib.sha256(message).digest(), signature)


def _with_any_curve(key: ec.EllipticCurvePublicKey) -> Callable[[bytes, bytes], bool]:
    def verify(message: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, message, _ALGORITHM)
        except InvalidSignature:
            return False
        return True

    return verify


def check(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether the signature is valid. This runs in the child."""
    verify = _load(public_key)
    return verify is not None and verify(message, signature)


def _serve() -> None:
    """Verify requests from stdin until it closes, which happens when the gateway dies."""
    unread = b""
    while data := os.read(0, _READ):
        verdicts, unread = _answer(unread + data)
        os.write(1, verdicts)


def _answer(data: bytes) -> tuple[bytes, bytes]:
    """Verify the complete requests at the start of `data`; return the results and the rest."""
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
