"""The Fleet API as a stock SuperNode calls it: its signatures and its retries, on either wire.

Read off ``client/grpc_rere_client``, ``supernode`` and ``supercore/retry`` of the flwr wheels 1.33 and
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
"""How long a signature made ahead is used; servers take it for 305 s."""


class Unavailable(Exception):
    """Nothing came of a call, and stock tries it again, for ever. It says what was heard."""


class Late(Exception):
    """A call was not answered within the time that it was given."""


class Refused(Exception):
    """An answer that no stock node meets in a healthy federation."""


class Proof(NamedTuple):
    """What proves whose call it is."""

    timestamp: str
    signature: bytes


class Wire(ABC):
    """How one node's calls reach the server."""

    @abstractmethod
    async def send(
        self, method: Method, body: bytes, proof: Proof, timeout: float | None
    ) -> ProtoMessage:
        """Make a call once and return what it answers.

        Raises:
            Unavailable, Late, Refused
        """

    @abstractmethod
    async def close(self) -> None:
        """Close its connections."""


def version_headers(version: str, component: str) -> tuple[tuple[str, str], ...]:
    """The headers, or metadata, by which a component of flwr says its version."""
    return (
        ("flwr-package-name", "flwr"),
        ("flwr-package-version", version),
        ("flwr-component-name", component),
    )


@dataclass
class Tally:
    """What all nodes of a generator did so far."""

    calls: Counter[str] = field(default_factory=Counter)
    """RPCs by method."""

    connections: int = 0
    """Connections opened, over HTTP; each costs a handshake with TLS."""

    empty_pulls: int = 0
    """PullMessages that brought nothing, each followed by a sleep."""

    retries: int = 0
    """Calls repeated because nothing came of them."""

    turned_away: Counter[str] = field(default_factory=Counter)
    """The same, by method and what was heard."""

    late_heartbeats: int = 0
    """Heartbeats not answered within 5 s, and repeated."""

    waits: int = 0
    """Objects found announced but not yet available, each followed by a back-off."""

    bytes_pulled: int = 0
    bytes_pushed: int = 0
    errors: list[str] = field(default_factory=list)
    """What no stock node would have met in a healthy federation."""


class Key:
    """A node's key, whose signatures can be made ahead.

    A call is signed when it is made, unless ``sign_ahead`` left a signature to use: on machines of
    their own, nodes would not take the CPU for that from the server.
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
        """When a method was called that has not been turned away since, by its name."""

        self._wire = wire
        self._key = key
        self._tally = tally

    async def call(self, name: str, request: ProtoMessage, timeout: float | None = None) -> Any:
        """Call an RPC until it is answered.

        Raises:
            Refused: The answer is one of which a stock node would die, or drop the message.
            Late: It took more than ``timeout`` seconds.
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
