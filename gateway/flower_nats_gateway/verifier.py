"""ECDSA verification in a process of its own.

A P-384 verification takes 0.3 to 0.6 ms and holds the interpreter's lock, so a thread would stall the
event loop just as long. One child process verifies for a gateway; requests that arrive together
travel together.
"""

import asyncio
import itertools
import struct
import sys
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable

log = get_logger(__name__)

_HEAD = struct.Struct("<QHHH")
_VERDICT = struct.Struct("<Q?")
_KEYS = 20_000
_LONGEST = 0xFFFF


class Verifier:
    """Verifies signatures in a child process, which it starts again if it dies."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._pending: dict[int, asyncio.Future[bool]] = {}
        self._numbers = itertools.count()

    async def verify(self, public_key: bytes, message: bytes, signature: bytes) -> bool:
        """Return whether `signature` is `message` signed (ECDSA, SHA-256) by this PEM key's owner.

        False too if the key is no elliptic-curve key. Raises `Unavailable` if the child died.
        """
        if max(len(public_key), len(message), len(signature)) > _LONGEST:
            return False
        stdin = await self._child()
        number = next(self._numbers)
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        head = _HEAD.pack(number, len(public_key), len(message), len(signature))
        stdin.write(head + public_key + message + signature)
        try:
            return await future
        finally:
            self._pending.pop(number, None)

    async def close(self) -> None:
        """End the child."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            await self._process.wait()
        if self._reader is not None:
            await self._reader

    async def _child(self) -> asyncio.StreamWriter:
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "flower_nats_gateway.verifier",
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
                self._reader = asyncio.create_task(self._read(self._process), name="verifier")
            assert self._process.stdin is not None
            return self._process.stdin

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while True:
                verdict = await process.stdout.readexactly(_VERDICT.size)
                number, valid = _VERDICT.unpack(verdict)
                future = self._pending.get(number)
                if future is not None and not future.done():
                    future.set_result(valid)
        except asyncio.IncompleteReadError:
            await process.wait()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(Unavailable("the signature verifier died"))


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
        key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _serve() -> None:
    """Verify what comes on stdin until it closes, which it does when the gateway dies."""
    requests, verdicts = sys.stdin.buffer, sys.stdout.buffer
    while head := requests.read(_HEAD.size):
        number, *lengths = _HEAD.unpack(head)
        public_key, message, signature = (requests.read(length) for length in lengths)
        verdicts.write(_VERDICT.pack(number, check(public_key, message, signature)))
        verdicts.flush()


if __name__ == "__main__":
    _serve()
