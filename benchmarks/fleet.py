"""The Fleet API as a stock SuperNode calls it: its signatures and its retries, on either wire.

Derived from ``client/grpc_rere_client``, ``supernode`` and ``supercore/retry`` of flwr 1.33 and
1.42, which retry alike.
"""

from __future__ import annotations

import asyncio
import random
import time
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from google.protobuf.message import Message as ProtoMessage

from flower_nats.wire.methods import BY_NAME, Method

MAX_RETRY_DELAY = 20.0
"""Seconds a node waits at most before it repeats a call."""

_SIGNATURE_SECONDS = 200.0
"""How long a signature made ahead is used; servers accept it for 305 s."""


class Unavailable(Exception):
    """A call failed, and stock retries it for ever. The text says how the call failed."""


class Late(Exception):
    """A call was not answered within its time limit."""


class Refused(Exception):
    """An answer that no stock node gets in a healthy federation."""


class Proof(NamedTuple):
    """The proof that a call is from its node."""

    timestamp: str
    signature: bytes


class Wire(ABC):
    """The way of one node's calls to the server."""

    @abstractmethod
    async def send(
        self, method: Method, body: bytes, proof: Proof, timeout: float | None
    ) -> ProtoMessage:
        """Make a call once and return the answer.

        Raises:
            Unavailable, Late, Refused
        """

    @abstractmethod
    async def close(self) -> None:
        """Close its connections."""


def version_headers(version: str, component: str) -> tuple[tuple[str, str], ...]:
    """Return the headers, or metadata, in which a component of flwr states its version."""
    return (
        ("flwr-package-name", "flwr"),
        ("flwr-package-version", version),
        ("flwr-component-name", component),
    )


@dataclass
class Tally:
    """Counts of all nodes of a generator so far."""

    calls: Counter[str] = field(default_factory=Counter)
    """RPCs by method."""

    connections: int = 0
    """Connections opened, over HTTP; each costs a handshake with TLS."""

    empty_pulls: int = 0
    """PullMessages calls without a message, each followed by a sleep."""

    retries: int = 0
    """Calls repeated because they failed."""

    turned_away: Counter[str] = field(default_factory=Counter)
    """The same, by method and failure."""

    late_heartbeats: int = 0
    """Heartbeats not answered within 5 s, and repeated."""

    waits: int = 0
    """Objects found announced but not yet available, each followed by a back-off."""

    bytes_pulled: int = 0
    bytes_pushed: int = 0
    errors: list[str] = field(default_factory=list)
    """Errors that no stock node would have met in a healthy federation."""


class Key:
    """A node's key, whose signatures can be made ahead.

    A call is signed when it is made, unless ``sign_ahead`` has left a signature. Real nodes run on
    other machines, so their signing takes no CPU from the server.
    """

    def __init__(self) -> None:
        self._private = ec.generate_private_key(ec.SECP384R1())
        self.public: bytes = self._private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        self._signed: list[Proof] = []
        self._signed_at = 0.0

    def sign_ahead(self, calls: int) -> None:
        """Make the proofs of the next ``calls`` calls now; each is used once."""
        self._signed = [self._sign() for _ in range(calls)]
        self._signed_at = time.monotonic()

    def proof(self) -> Proof:
        """Return a proof that was not used before."""
        ahead = self._signed and time.monotonic() - self._signed_at < _SIGNATURE_SECONDS
        return self._signed.pop() if ahead else self._sign()

    def _sign(self) -> Proof:
        timestamp = datetime.now(UTC).isoformat()
        return Proof(
            timestamp, self._private.sign(timestamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))
        )


class FleetCalls:
    """The Fleet API over a wire of one node's own, every call with a signature of its own."""

    def __init__(self, wire: Wire, key: Key, tally: Tally) -> None:
        self.asked_at: dict[str, float] = {}
        """The time of each method's last call, by name, unless that call has failed."""

        self._wire = wire
        self._key = key
        self._tally = tally

    async def call(self, name: str, request: ProtoMessage, timeout: float | None = None) -> Any:
        """Call an RPC until it is answered.

        Raises:
            Refused: With this answer, a stock node would end, or drop the message.
            Late: The answer took more than ``timeout`` seconds.
        """
        method = BY_NAME["Fleet", name]
        body = request.SerializeToString(deterministic=True)
        ceiling = 1.0
        while True:
            self._tally.calls[name] += 1
            self.asked_at[name] = time.monotonic()
            try:
                return await self._wire.send(method, body, self._key.proof(), timeout)
            except Unavailable as exc:
                self.asked_at.pop(name, None)
                self._tally.retries += 1
                self._tally.turned_away[f"{name} {exc}"] += 1
            await asyncio.sleep(random.uniform(0, ceiling))
            ceiling = min(2 * ceiling, MAX_RETRY_DELAY)

    async def close(self) -> None:
        await self._wire.close()
