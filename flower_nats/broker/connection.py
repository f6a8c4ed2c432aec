"""The only access to NATS, with the few operations that the runtime needs.

No other module imports the driver. The stream's leader answers every operation on a stream, so that
one process reads what another has just written. A follower may answer only `fetch`
(content-addressed data is never stale) and `bulk` (its end does not prove that there is no more).
During a fault of the broker, a leader election or a lost connection, an operation waits for
`patience` seconds and then raises `Unavailable`.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from nats.aio.msg import Msg

from flower_nats.broker import subjects
from flower_nats.broker.core_connection import (
    ATTEMPT,
    PATIENCE,
    BrokerClient,
    BrokerRefused,
    CoreConnection,
    Headers,
    NobodyListens,
)
from flower_nats.broker.records import Record, of_any, of_leader
from flower_nats.broker.requests import STATUS
from flower_nats.model.errors import FlowerNatsError, Unavailable

_QUICK_ATTEMPTS = ((3.0, 1.0), (10.0, 2.0))
"""The limit of an attempt (`ATTEMPT`) for small requests: pairs of seconds since the first try, and
seconds that an attempt may take until then. While a stream elects a leader, for 4 to 9 s, no server
answers questions about it. An advisory tells waiting calls of the new leader, but may be missed,
for example while the connection is lost.
"""

_SMALL = 64 * 1024
"""Bytes up to which a request is small."""

WINDOW = 24
"""Chunks of larger contents (`chunks`), of 1 MiB each, that are in transit in each direction."""

_LONGEST_TTL = 10 * 365 * 86400.0
"""Seconds. nats-server counts nanoseconds in 64 bits, and drops a message with a longer TTL at
once."""

_LEADER_ELECTED = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED."
"""Prefix of the subjects on which nats-server announces a stream's new leader."""

_NOT_FOUND = 10037
_STREAM_NOT_FOUND = 10059
_NO_SUITABLE_PEERS = 10005
_DUPLICATE_IN_PROCESS = 10158
_WRITE_IN_PROCESS = 10164
_WRONG_SEQUENCE = 10071

# The limit of the account; of the server's disk or its share for JetStream; of the stream.
_NO_ROOM = frozenset({10002, 10023, 10077})

# Either too few servers are up. Or the same message, or another with an expectation on the same
# subjects, is still being replicated, and it is not known yet whether it will be stored.
_PASSING = frozenset(
    {
        _NO_SUITABLE_PEERS,
        _DUPLICATE_IN_PROCESS,
        _WRITE_IN_PROCESS,
        # Superlinks create every stream when they start, so a missing stream will exist soon.
        _STREAM_NOT_FOUND,
    }
)


class WrongSequence(FlowerNatsError):
    """Somebody else has written this subject since it was read."""


class NoRoom(Unavailable):
    """A message cannot be stored until something else is removed."""


@dataclass(frozen=True)
class Stored:
    """The broker's acknowledgement of a stored message."""

    sequence: int
    duplicate: bool
    """True if a message of the same id had been stored before, and this one was not."""


class Connection(CoreConnection):
    """A connection to the broker that reconnects for ever, with access to its streams."""

    def __init__(self, client: BrokerClient) -> None:
        super().__init__(client)
        self.sending = asyncio.Semaphore(WINDOW)
        """Places for chunks on their way to the broker."""
        self.fetching = asyncio.Semaphore(WINDOW)
        """Places for chunks on their way here."""

    async def _open(self) -> None:
        await super()._open()
        await self._client.subscribe(_LEADER_ELECTED + "*", cb=self._on_leader)

    async def _on_leader(self, advisory: Msg) -> None:
        """Break off requests to a stream's former leader, which does not answer."""
        stream = advisory.subject.removeprefix(_LEADER_ELECTED)
        self.break_off(lambda subject: subjects.is_of(stream, subject))

    async def store(
        self,
        subject: str,
        data: bytes | memoryview,
        *,
        headers: Headers | None = None,
        message_id: str = "",
        expect: tuple[str, int] | None = None,
        ttl: float = 0.0,
        patience: float = PATIENCE,
        await_room: bool = True,
    ) -> Stored:
        """Store a message in the stream that owns `subject`; return once it is safe there.

        `message_id` makes the broker drop a second message of that id (for the stream's duplicate
        window). `expect` is a subject filter and the sequence that its newest message must have (0:
        no such message); the broker checks it, and `WrongSequence` is raised if it has another.
        `ttl`, in seconds, lets the message vanish by itself; one of more than ten years counts as ten.
        `NoRoom` is raised when `patience` is over, or at once without `await_room`.
        """
        all_headers = dict(headers or {})
        if message_id:
            all_headers["Nats-Msg-Id"] = message_id
        if expect is not None:
            all_headers["Nats-Expected-Last-Subject-Sequence"] = str(expect[1])
            all_headers["Nats-Expected-Last-Subject-Sequence-Subject"] = expect[0]
        if ttl:
            all_headers["Nats-TTL"] = f"{max(1, int(min(ttl, _LONGEST_TTL) + 0.999))}s"
        answer = await self._patiently(subject, data, all_headers, patience, await_room=await_room)
        return Stored(int(answer["seq"]), bool(answer.get("duplicate", False)))

    async def next(self, stream: str, subject: str, after: int = 0) -> Record | None:
        """Return the first message on `subject` (may hold wildcards) after sequence `after`."""
        return await self._get(stream, {"next_by_subj": subject, "seq": after + 1})

    async def last(self, stream: str, subject: str, patience: float = PATIENCE) -> Record | None:
        """Return the newest message on exactly this subject."""
        return await self._get(stream, {"last_by_subj": subject}, patience)

    async def first_since(self, stream: str, subject: str, since: str) -> Record | None:
        """Return the first message on `subject` stored at or after `since` (RFC 3339)."""
        return await self._get(stream, {"next_by_subj": subject, "start_time": since})

    async def fetch(self, stream: str, subject: str, *, large: bool = False) -> Record | None:
        """Return the newest message on exactly this subject, perhaps from a follower.

        Only for data that never changes under its subject. A message that is found is right; a
        message that is not found may still exist. `large` allows a megabyte, and a longer time.
        """
        body = json.dumps({"last_by_subj": subject}).encode()
        deadline = time.monotonic() + PATIENCE
        while True:
            attempt = ATTEMPT if large else _attempt(body, deadline - PATIENCE)
            try:
                answer = await self.ask(f"$JS.API.DIRECT.GET.{stream}", body, timeout=attempt)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                self.retries += 1
                await asyncio.sleep(0.1)
                continue
            if (answer.headers or {}).get(STATUS) == "404":
                return None
            return of_any(answer)

    async def bulk(
        self,
        stream: str,
        subject: str,
        after: int,
        take: Callable[[Record], None],
        *,
        size: int,
        timeout: float,
    ) -> None:
        """Call `take` with each message on `subject` after sequence `after`, without gaps.

        It takes one request. A follower may answer, and may lack the newest messages. It ends after
        `size` bytes, or when a message is lost on its way: `next` tells whether there is more.
        Raises `Unavailable` if it has not ended after `timeout` seconds; messages taken by then
        count.
        """
        request = {"next_by_subj": subject, "seq": after + 1, "batch": size, "max_bytes": size}
        previous = "0"

        def hear(answer: Msg) -> bool:
            nonlocal previous
            headers = answer.headers or {}
            # Each message carries the sequence of the message sent before it (NATS ADR-31).
            if STATUS in headers or headers.get("Nats-Last-Sequence") != previous:
                return True
            previous = headers["Nats-Sequence"]
            take(of_any(answer))
            return False

        body = json.dumps(request).encode()
        await self.ask(f"$JS.API.DIRECT.GET.{stream}", body, timeout=timeout, enough=hear)

    async def subjects(self, stream: str, subject: str) -> list[str]:
        """Return every subject under the filter `subject` that holds a message now."""
        found: list[str] = []
        while True:
            answer = await self._api(
                f"STREAM.INFO.{stream}", {"subjects_filter": subject, "offset": len(found)}
            )
            page = cast(dict[str, int], answer["state"].get("subjects") or {})
            found.extend(page)
            if not page or len(found) >= int(answer.get("total", 0)):
                return found

    async def info(self, stream: str) -> dict[str, Any]:
        """Return the broker's description of a stream: its configuration, state and cluster."""
        return await self._api(f"STREAM.INFO.{stream}", {})

    async def stream_names(self, subject: str) -> set[str]:
        """Return the names of the streams that store what matches the filter `subject`."""
        found: set[str] = set()
        while True:
            answer = await self._api("STREAM.NAMES", {"subject": subject, "offset": len(found)})
            page = cast(list[str], answer.get("streams") or [])
            found.update(page)
            if not page or len(found) >= int(answer.get("total", 0)):
                return found

    async def purge(self, stream: str, subject: str, up_to: int = 0) -> int:
        """Remove messages on `subject` (may hold wildcards), below sequence `up_to` if it is given.

        Returns how many messages were removed.
        """
        request: dict[str, Any] = {"filter": subject}
        if up_to:
            request["seq"] = up_to
        answer = await self._api(f"STREAM.PURGE.{stream}", request)
        return int(answer.get("purged", 0))

    async def ensure_stream(self, config: Mapping[str, Any]) -> None:
        """Create a stream, or bring an existing one to this configuration.

        An existing stream never loses replicas, nor settings that `config` does not name: an
        operator may have set them. Raises `Unavailable` while too few servers of the cluster are up
        for the replicas of a new stream.
        """
        name = str(config["name"])
        existing = await self._api(f"STREAM.INFO.{name}", {}, tolerate=_STREAM_NOT_FOUND)
        if "error" in existing:
            await self._api(f"STREAM.CREATE.{name}", config)
            return
        present = existing["config"]
        copies = max(int(present["num_replicas"]), int(config["num_replicas"]))
        wanted = {**config, "num_replicas": copies}
        if any(present.get(key) != value for key, value in wanted.items()):
            await self._api(f"STREAM.UPDATE.{name}", {**present, **wanted})

    async def account(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Return the broker's limits and usage of JetStream; raises if JetStream is off."""
        return await self._api("INFO", None, patience=patience)

    async def _get(
        self, stream: str, request: dict[str, Any], patience: float = PATIENCE
    ) -> Record | None:
        answer = await self._api(f"STREAM.MSG.GET.{stream}", request, _NOT_FOUND, patience)
        if "error" in answer:
            return None
        return of_leader(answer["message"])

    async def _api(
        self,
        verb: str,
        request: Mapping[str, Any] | None,
        tolerate: int | None = None,
        patience: float = PATIENCE,
    ) -> dict[str, Any]:
        """Ask the broker's stream API; an error with the code `tolerate` counts as an answer."""
        body = json.dumps(request).encode() if request is not None else b""
        return await self._patiently(f"$JS.API.{verb}", body, None, patience, tolerate)

    async def _patiently(
        self,
        subject: str,
        body: bytes | memoryview,
        headers: Headers | None,
        patience: float,
        tolerate: int | None = None,
        *,
        await_room: bool = True,
    ) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while True:
            attempt = _attempt(body, deadline - patience)
            try:
                message = await self.ask(subject, body, headers, attempt)
                answer = cast(dict[str, Any], json.loads(message.data))
                _raise_error(subject, answer, tolerate)
                return answer
            except Unavailable as exc:
                hopeless = isinstance(exc, NoRoom) and not await_room
                if hopeless or time.monotonic() > deadline:
                    raise
            self.retries += 1
            await asyncio.sleep(0.1)


def _attempt(body: bytes | memoryview, first_try: float) -> float:
    """Return how long to wait for the answer to the next try."""
    if len(body) <= _SMALL:
        spent = time.monotonic() - first_try
        for within, attempt in _QUICK_ATTEMPTS:
            if spent < within:
                return attempt
    return ATTEMPT


def _raise_error(subject: str, answer: Mapping[str, Any], tolerate: int | None) -> None:
    error = answer.get("error")
    if error is None or error.get("err_code", 0) == tolerate:
        return
    if error.get("err_code") in _NO_ROOM:
        raise NoRoom(f"{subject}: {error.get('description')}")
    if error.get("code") == 503 or error.get("err_code") in _PASSING:
        raise Unavailable(f"{subject}: {error.get('description')}")
    if error.get("err_code") == _WRONG_SEQUENCE:
        raise WrongSequence(f"{subject}: {error.get('description')}")
    raise BrokerRefused(f"{subject}: {error}")


__all__ = [
    "PATIENCE",
    "BrokerRefused",
    "Connection",
    "Headers",
    "NoRoom",
    "NobodyListens",
    "Record",
    "Stored",
    "WrongSequence",
]
