"""The one seam to NATS: about as many verbs as the runtime needs, and nobody else imports the driver.

Every verb on a stream is answered by the stream's leader, so that one process reads what another has
just written; only `fetch` (content-addressed data, which cannot be stale) may be served by a
follower. A fault of the broker, a leader election or a lost connection is waited out for `patience`
seconds and then raised as `Unavailable`.
"""

import asyncio
import base64
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, MaxPayloadError, NoRespondersError
from nats.errors import Error as NatsError

from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError, Unavailable
from flower_nats.stopping import cancellable

log = get_logger(__name__)

PATIENCE = 20.0
"""Seconds for which a fault of the broker is waited out before a caller hears of it."""

# nats-py declares an int and takes any number of seconds.
_RECONNECT_WAIT: Any = 0.25

_ATTEMPT = 5.0
"""Seconds that one request to a healthy broker may take."""

_QUICK_ATTEMPTS = ((3.0, 1.0), (10.0, 2.0))
"""The same for a small request: up to so many seconds after its first try, each may take so many.
While a stream elects a leader, for 4 to 9 s, nobody answers what is asked about it: who waits long for
that misses the end of it."""

_SMALL = 64 * 1024
"""Bytes up to which a request is small."""

_RECENT = 5.0
"""Seconds for which a hint may have been on its way when a connection breaks: what is longer under
way is seen by the pings."""

_PENDING_BYTES = 64 * 1024 * 1024
"""Bytes that may wait in this process for the socket to the broker."""

_HINTS = 1000
"""Hints that are kept to be given again: more than are on their way at any moment."""

_NOT_FOUND = 10037
_NO_SUITABLE_PEERS = 10005
_DUPLICATE_IN_PROCESS = 10158
_WRITE_IN_PROCESS = 10164
_WRONG_SEQUENCE = 10071

# Not enough servers are there yet; the same message, or another whose expectation covers the same
# subjects, was sent before and its copies are being made: whether it will stand is not known yet.
_PASSING = frozenset({_NO_SUITABLE_PEERS, _DUPLICATE_IN_PROCESS, _WRITE_IN_PROCESS})

Headers = Mapping[str, str]
MessageHandler = Callable[[Msg], Awaitable[None]]


class WrongSequence(FlowerNatsError):
    """Somebody else has written this subject since it was read."""


class ConnectionEnded(FlowerNatsError):
    """The connection to the broker has ended for good."""


class BrokerRefused(FlowerNatsError):
    """The broker refused a request for a reason that trying again would not mend."""


@dataclass(frozen=True)
class Record:
    """A message as a stream holds it."""

    subject: str
    sequence: int
    data: bytes
    headers: Headers = field(default_factory=dict)
    time: str = ""
    """When the broker stored it, RFC 3339."""


@dataclass(frozen=True)
class Stored:
    """The broker's receipt for a stored message."""

    sequence: int
    duplicate: bool
    """True if a message of the same id had been stored before, and this one was not."""


class Connection:
    """A connection to the broker that reconnects for ever."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reconnected: list[Callable[[], None]] = []
        self._hinted: list[Callable[[str, bytes], None]] = []
        self._hints: deque[tuple[float, str, bytes]] = deque(maxlen=_HINTS)
        self._closing = False
        self._closed = asyncio.Event()
        self.retries = 0
        """Requests to the broker's streams that were made again after a fault that passes."""

    @classmethod
    async def connect(
        cls, urls: Sequence[str], name: str, patience: float = PATIENCE
    ) -> "Connection":
        """Connect to the first of `urls` that answers.

        Raises `Unavailable` if none does within `patience` seconds.
        """
        client = Client()
        connection = cls(client)
        try:
            # The driver itself would go on for ever, at the start too.
            async with asyncio.timeout(patience):
                await client.connect(
                    servers=[_without_login(url) for url in urls],
                    **_login(urls),
                    name=name,
                    max_reconnect_attempts=-1,
                    # What this process publishes it does not need to hear: see `on_hint`.
                    no_echo=True,
                    reconnect_time_wait=_RECONNECT_WAIT,
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    allow_reconnect=True,
                    drain_timeout=5,
                    reconnected_cb=connection._on_reconnect,
                    disconnected_cb=connection._on_disconnect,
                    closed_cb=connection._on_close,
                    error_cb=_on_error,
                )
        except (NatsError, OSError, TimeoutError) as exc:
            await connection.close()
            raise Unavailable(f"no NATS server answers: {client.last_error or exc!r}") from exc
        return connection

    async def close(self) -> None:
        """Close the connection after what is on its way out has left."""
        self._closing = True
        try:
            if self._client.is_connected:
                await self._client.drain()
            elif not self._client.is_closed:
                await self._client.close()
        # A RuntimeError is what uvloop raises for a write to a connection that is lost.
        except (NatsError, OSError, RuntimeError) as exc:
            log.warning("broker_not_closed", reason=repr(exc))

    async def until_ended(self) -> None:
        """Wait for the connection's end, which it has when the broker refuses its login.

        Raises `ConnectionEnded`.
        """
        await self._closed.wait()
        raise ConnectionEnded(f"The broker has ended the connection: {self._client.last_error!r}")

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached right now."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """Bytes that one message may hold, as the broker says."""
        return int(self._client.max_payload)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a lost connection is back: hints may have been missed."""
        self._reconnected.append(callback)

    # Core NATS

    def on_hint(self, callback: Callable[[str, bytes], None]) -> None:
        """Call `callback(subject, payload)` for each hint that this connection itself gives."""
        self._hinted.append(callback)

    async def hint(self, subject: str, payload: bytes = b"") -> None:
        """Publish a hint: not stored, not acknowledged; a failure only delays.

        Who waits in this process hears of it by `on_hint`, without a way through the broker.
        """
        for callback in self._hinted:
            callback(subject, payload)
        self._hints.append((time.monotonic(), subject, payload))
        await self._publish_hint(subject, payload)

    async def _publish_hint(self, subject: str, payload: bytes) -> None:
        try:
            await self._client.publish(subject, payload)
        except NatsError as exc:
            log.warning("hint_lost", subject=subject, reason=str(exc))

    async def subscribe(
        self, subject: str, handler: MessageHandler, queue: str = ""
    ) -> Subscription:
        """Call `handler` for each message on `subject` (in `queue`, each goes to one member)."""
        subscription = await self._client.subscribe(
            subject, queue=queue, cb=handler, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        await self._client.flush()
        return subscription

    async def flush(self) -> None:
        """Wait until the broker has seen all that was sent before."""
        await self._client.flush()

    async def ask(
        self, subject: str, body: bytes, headers: Headers | None = None, timeout: float = _ATTEMPT
    ) -> Msg:
        """Send one request and return the answer.

        Raises `Unavailable` if nobody listens or no answer comes within `timeout` seconds.
        """
        try:
            return await cancellable(
                self._client.request(
                    subject, body, timeout=timeout, headers=dict(headers) if headers else None
                )
            )
        except MaxPayloadError as exc:
            raise BrokerRefused(f"{len(body)} bytes are more than the broker takes") from exc
        except NoRespondersError as exc:
            raise Unavailable(f"nobody serves {subject}") from exc
        except (NatsError, TimeoutError, OSError) as exc:
            raise Unavailable(f"no answer on {subject}: {exc!r}") from exc

    async def ask_all(self, subject: str, hear: Callable[[Msg], bool], timeout: float) -> None:
        """Send one request to all who listen, and `hear` each answer until it says that it is enough.

        Returns after `timeout` seconds at the latest. Raises `Unavailable` if nobody listens.
        """
        inbox = self._client.new_inbox()
        answers = await self._client.subscribe(inbox)
        try:
            async with asyncio.timeout(timeout):
                await self._client.publish(subject, b"", reply=inbox)
                while True:
                    message = await answers.next_msg(timeout=None)
                    if (message.headers or {}).get("Status") == "503":
                        raise Unavailable(f"nobody serves {subject}")
                    if hear(message):
                        return
        except TimeoutError:
            return
        except (NatsError, OSError) as exc:
            raise Unavailable(f"no answer on {subject}: {exc!r}") from exc
        finally:
            with suppress(NatsError):
                await answers.unsubscribe()

    async def answer(self, request: Msg, body: bytes, headers: Headers) -> None:
        """Answer a request that came by `subscribe`."""
        try:
            await self._client.publish(request.reply, body, headers=dict(headers) or None)
        except NatsError as exc:
            # Whoever asked asks again.
            log.warning("answer_lost", subject=request.subject, reason=repr(exc))

    # Streams

    async def store(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Headers | None = None,
        message_id: str = "",
        expect: tuple[str, int] | None = None,
        ttl: float = 0.0,
        patience: float = PATIENCE,
    ) -> Stored:
        """Store a message in the stream that owns `subject`; return once it is safe there.

        `message_id` makes the broker drop a second message of that id (for the stream's duplicate
        window). `expect` is a subject filter and the sequence that its newest message must have (0:
        no such message); the broker checks it, and `WrongSequence` is raised if it has another.
        `ttl`, in seconds, lets the message vanish by itself.
        """
        all_headers = dict(headers or {})
        if message_id:
            all_headers["Nats-Msg-Id"] = message_id
        if expect is not None:
            all_headers["Nats-Expected-Last-Subject-Sequence"] = str(expect[1])
            all_headers["Nats-Expected-Last-Subject-Sequence-Subject"] = expect[0]
        if ttl:
            all_headers["Nats-TTL"] = f"{max(1, int(ttl + 0.999))}s"
        answer = await self._patiently(subject, data, all_headers, patience)
        return Stored(int(answer["seq"]), bool(answer.get("duplicate", False)))

    async def next(self, stream: str, subject: str, after: int = 0) -> Record | None:
        """Return the first message on `subject` (may hold wildcards) after sequence `after`."""
        return await self._get(stream, {"next_by_subj": subject, "seq": after + 1})

    async def last(self, stream: str, subject: str) -> Record | None:
        """Return the newest message on exactly this subject."""
        return await self._get(stream, {"last_by_subj": subject})

    async def first_since(self, stream: str, subject: str, since: str) -> Record | None:
        """Return the first message on `subject` that was stored at or after `since` (RFC 3339)."""
        return await self._get(stream, {"next_by_subj": subject, "start_time": since})

    async def fetch(self, stream: str, subject: str) -> Record | None:
        """Return the newest message on exactly this subject, perhaps from a follower.

        For content-addressed data alone: what is found is right, what is not found may be there.
        """
        body = json.dumps({"last_by_subj": subject}).encode()
        deadline = time.monotonic() + PATIENCE
        while True:
            attempt = _attempt(body, deadline - PATIENCE)
            try:
                answer = await self.ask(f"$JS.API.DIRECT.GET.{stream}", body, timeout=attempt)
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
                self.retries += 1
                await asyncio.sleep(0.1)
                continue
            headers = answer.headers or {}
            if headers.get("Status") == "404":
                return None
            return Record(
                headers.get("Nats-Subject", subject),
                int(headers.get("Nats-Sequence", "0")),
                answer.data,
                headers,
                headers.get("Nats-Time-Stamp", ""),
            )

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

    async def purge(self, stream: str, subject: str, up_to: int = 0) -> int:
        """Remove what is on `subject` (may hold wildcards), below sequence `up_to` if that is given.

        Returns how many messages went.
        """
        request: dict[str, Any] = {"filter": subject}
        if up_to:
            request["seq"] = up_to
        answer = await self._api(f"STREAM.PURGE.{stream}", request)
        return int(answer.get("purged", 0))

    async def ensure_stream(self, config: Mapping[str, Any]) -> None:
        """Create a stream, or bring an existing one to this configuration.

        An existing one never loses copies by this. Raises `Unavailable` as long as too few servers
        of the cluster are there for the copies of a new one.
        """
        name = str(config["name"])
        existing = await self._api(f"STREAM.INFO.{name}", {}, tolerate_errors=True)
        if "error" in existing:
            await self._api(f"STREAM.CREATE.{name}", config)
            return
        present = existing["config"]
        copies = max(int(present["num_replicas"]), int(config["num_replicas"]))
        wanted = {**config, "num_replicas": copies}
        if any(present.get(key) != value for key, value in wanted.items()):
            await self._api(f"STREAM.UPDATE.{name}", wanted)

    async def account(self, patience: float = PATIENCE) -> dict[str, Any]:
        """Return the broker's limits and usage of JetStream; raises if JetStream is off."""
        return await self._api("INFO", None, patience=patience)

    @property
    def server_info(self) -> dict[str, Any]:
        """What the connected server said of itself on connecting."""
        return dict(self._client._server_info)

    async def _get(self, stream: str, request: dict[str, Any]) -> Record | None:
        answer = await self._api(f"STREAM.MSG.GET.{stream}", request, tolerate_errors=True)
        if "error" in answer:
            if answer["error"].get("err_code") == _NOT_FOUND:
                return None
            raise BrokerRefused(f"{stream} {request}: {answer['error']}")
        message = answer["message"]
        return Record(
            message["subject"],
            int(message["seq"]),
            base64.b64decode(message.get("data", "")),
            _parse_headers(base64.b64decode(message.get("hdrs", ""))),
            message["time"],
        )

    async def _api(
        self,
        verb: str,
        request: Mapping[str, Any] | None,
        tolerate_errors: bool = False,
        patience: float = PATIENCE,
    ) -> dict[str, Any]:
        body = json.dumps(request).encode() if request is not None else b""
        return await self._patiently(f"$JS.API.{verb}", body, None, patience, tolerate_errors)

    async def _patiently(
        self,
        subject: str,
        body: bytes,
        headers: Headers | None,
        patience: float,
        tolerate_errors: bool = False,
    ) -> dict[str, Any]:
        deadline = time.monotonic() + patience
        while True:
            attempt = _attempt(body, deadline - patience)
            try:
                message = await self.ask(subject, body, headers, attempt)
                answer = cast(dict[str, Any], json.loads(message.data))
                _raise_error(subject, answer, tolerate_errors)
                return answer
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            self.retries += 1
            await asyncio.sleep(0.1)

    async def _on_disconnect(self) -> None:
        if not self._closing:
            log.warning("broker_disconnected")
        # Their answers would come by the connection that is gone: the driver would wait in vain.
        for answer in list(self._client._resp_map.values()):
            if not answer.done():
                answer.set_exception(ConnectionClosedError())

    async def _on_close(self) -> None:
        self._closed.set()

    async def _on_reconnect(self) -> None:
        url = self._client.connected_url
        log.info("broker_reconnected", server=url.netloc if url else "")
        for callback in self._reconnected:
            callback()
        since = time.monotonic() - _RECENT
        for given_at, subject, payload in list(self._hints):
            if given_at > since:
                await self._publish_hint(subject, payload)


def _attempt(body: bytes, first_try: float) -> float:
    """Return how long to wait for the answer to the next try."""
    if len(body) <= _SMALL:
        spent = time.monotonic() - first_try
        for within, attempt in _QUICK_ATTEMPTS:
            if spent < within:
                return attempt
    return _ATTEMPT


def _login(urls: Sequence[str]) -> dict[str, Any]:
    """Return the login in the URLs as the driver's options.

    In a URL it would be for that server alone, and not for those that the cluster tells of.
    """
    for url in map(urlsplit, urls):
        if url.username is not None and url.password is not None:
            return {"user": unquote(url.username), "password": unquote(url.password)}
        if url.username is not None:
            return {"token": unquote(url.username)}
    return {}


def _without_login(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _raise_error(subject: str, answer: Mapping[str, Any], tolerate_errors: bool) -> None:
    error = answer.get("error")
    if error is None:
        return
    if error.get("code") == 503 or error.get("err_code") in _PASSING:
        raise Unavailable(f"{subject}: {error.get('description')}")
    if error.get("err_code") == _WRONG_SEQUENCE:
        raise WrongSequence(f"{subject}: {error.get('description')}")
    if not tolerate_errors:
        raise BrokerRefused(f"{subject}: {error}")


def _parse_headers(raw: bytes) -> dict[str, str]:
    lines = raw.decode().split("\r\n")[1:]
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines) if key}


async def _on_error(error: Exception) -> None:
    log.warning("broker_error", reason=repr(error))


__all__ = ["PATIENCE", "BrokerRefused", "Connection", "Record", "Stored", "WrongSequence"]
