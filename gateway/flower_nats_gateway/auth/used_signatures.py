"""For which call each signature of a SuperNode was used: it is valid for no other.

A SuperNode signs only the time, not its call (flwr 1.30 to 1.42, over both wires). So for 305 s its
signature would be valid for any call of that node. But it signs each call anew, even a repeated
one. So a signature belongs to the first call that comes with it. The same call may come again,
because a balancer may repeat it: every handler tolerates that.
"""

import asyncio
import hashlib
import struct
from array import array

from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from flower_nats.broker.connection import Connection
from flower_nats.broker.subjects import EVENT_SIGNATURES
from flower_nats.model.errors import FlowerNatsError
from flower_nats_gateway.calls.call import Call

_SETS = 65_536
_WAYS = 8
"""Signatures in one bucket, where the oldest makes room. In all, 524,288 are remembered, in 8 MiB:
those of 305 s at 1,700 calls a second."""

_USE = struct.Struct(">QQ")

_TELL_AFTER = 0.05
"""Seconds for which uses are collected before other gateways are told."""


class UsedSignatures:
    """Remembers the uses of signatures, for this gateway and by hints for the others."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._table = array("Q", bytes(_SETS * _WAYS * _USE.size))
        self._untold = bytearray()
        self._telling: asyncio.Task[None] | None = None

    def use(self, public_key: bytes, signature: bytes, call: Call) -> bool:
        """Use a valid signature for a call; False if it was used for another call before."""
        used, purpose = _identify(public_key, signature), _describe(call)
        is_first, is_good = self._bind(used, purpose)
        if is_first:
            self._untold += _USE.pack(used, purpose)
            if self._telling is None:
                self._telling = asyncio.create_task(self._tell(), name="signatures")
        return is_good

    def note(self, payload: bytes) -> None:
        """Note the hint of a gateway at which signatures were used."""
        for used, purpose in _USE.iter_unpack(payload):
            self._bind(used, purpose)

    def _bind(self, used: int, purpose: int) -> tuple[bool, bool]:
        """Return whether a signature was unused, and whether it may be used for this purpose."""
        # Python's hash of bytes differs in each process, so nobody can fill a bucket on purpose.
        first = hash(_USE.pack(used, 0)) % _SETS * _WAYS * 2
        last = first + _WAYS * 2
        table = self._table
        for at in range(first, last, 2):
            if table[at] == used:
                return False, table[at + 1] == purpose
        table[first + 2 : last] = table[first : last - 2]
        table[first], table[first + 1] = used, purpose
        return True, True

    async def _tell(self) -> None:
        await asyncio.sleep(_TELL_AFTER)
        payload, self._untold = bytes(self._untold), bytearray()
        self._telling = None
        try:
            await self._connection.hint(EVENT_SIGNATURES, payload)
        except FlowerNatsError:
            # This is a hint, and may be lost.
            return


def _identify(public_key: bytes, signature: bytes) -> int:
    # Not the signature as written, because anybody can turn a signature (r, s) into (r, -s).
    r, _ = decode_dss_signature(signature)
    return _digest(public_key, b"%x" % r)


def _describe(call: Call) -> int:
    return _digest(call.method.name.encode(), call.body)


def _digest(*parts: bytes) -> int:
    found = hashlib.sha256(b"\n".join(parts)).digest()
    return int.from_bytes(found[:8], "big")
