"""The connection to NATS: core messages, requests and hints; `connection` adds the streams."""

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError, NoRespondersError

from flower_nats.broker.inboxes import inboxes_for, is_inbox
from flower_nats.broker.nkeys import user_key
from flower_nats.broker.requests import Enough, Requests
from flower_nats.broker.urls import login, without_login
from flower_nats.logs import get_logger
from flower_nats.model.errors import FlowerNatsError, Unavailable
from flower_nats.outage import Outage

log = get_logger(__name__)

PATIENCE = 20.0
"""Seconds that a call waits for a fault of the broker to pass before it fails."""

# nats-py declares an int and takes any number of seconds.
_RECONNECT_WAIT: Any = 0.25

OLDEST_BROKER = (2, 11)
"""The oldest nats-server in which messages can expire one by one."""

ATTEMPT = 5.0
"""Seconds that one request to a healthy broker may take."""

_RECENT = 5.0
"""Seconds that a hint may have been in transit when a connection breaks. Pings detect longer
delays."""

_FLUSH_SECONDS = 1
"""Seconds that the broker may take, at the end, to accept the last messages."""

_PENDING_BYTES = 64 * 1024 * 1024
"""Bytes that may wait in this process for the socket to the broker."""

_HINTS = 1000
"""Hints that are kept to be sent again: more than are in transit at any moment."""

_FORBIDDEN = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)
"""The text with which NATS refuses a message; the driver gives it in lower case."""

_REFUSALS = 100
"""Refusals of NATS that are kept: more than there are open requests at a time."""

Headers = Mapping[str, str]
MessageHandler = Callable[[Msg], Awaitable[None]]


class ConnectionEnded(FlowerNatsError):
    """The connection to the broker has ended for good."""


class BrokerRefused(FlowerNatsError):
    """The broker refused a request for a reason that trying again would not mend."""


class NobodyListens(Unavailable):
    """There is no subscription to what was asked."""


class NotPermitted(Unavailable):
    """NATS lets this user not ask that. Who manages NATS may mend it while we run."""


class BrokerClient(Client):
    """The driver's client, with what the driver lacks.

    It never logs in without TLS if the URL says tls. It knows NKeys without another package. It
    does not look for a server once it has to end.
    """

    is_leaving = False
    """Whether the client has to end."""

    async def _connect_to_server(self, s: Any) -> None:
        # At its end the driver cancels its search for a server once. Python 3.11 may lose this
        # cancel. Then the search would go on for ever, and the event loop would not end.
        if self.is_leaving:
            raise asyncio.CancelledError
        await super()._connect_to_server(s)

    def server_certificate(self) -> bytes | None:
        """Return the certificate (DER) of the server that we are connected to; None without TLS."""
        writer = getattr(self._transport, "_io_writer", None)
        encrypted = None if writer is None else writer.get_extra_info("ssl_object")
        return None if encrypted is None else encrypted.getpeercert(True)

    def _setup_nkeys_seed_connect(self) -> None:
        key = user_key(self._nkeys_seed_str or "")
        assert key is not None, "urls.login has read it"
        self._public_nkey, self._signature_cb = key.public, key.sign

    def _connect_command(self) -> bytes:
        # The first message from a server is not encrypted, and says whether TLS follows. A machine
        # in between could change it, and the driver would then not use TLS.
        assert self._current_server is not None
        if self._current_server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise NatsError("the URL says tls://, and the server speaks no TLS")
        command: bytes = super()._connect_command()
        return command


class BrokerTooOld(FlowerNatsError):
    """The broker lacks what we need."""


class CoreConnection:
    """A connection to the broker that reconnects for ever."""

    def __init__(self, client: BrokerClient) -> None:
        self._client = client
        self._requests = Requests(client)
        self._reconnected: list[Callable[[], None]] = []
        self._hinted: list[Callable[[str, bytes], None]] = []
        self._hints: deque[tuple[float, str, bytes]] = deque(maxlen=_HINTS)
        self._outage = Outage(log, "broker_away", "broker_back")
        self._closed = asyncio.Event()
        self._forbidden: deque[tuple[float, str]] = deque(maxlen=_REFUSALS)
        self.retries = 0
        """Requests to the broker's streams that were made again after a fault that passes."""

    @classmethod
    async def connect(
        cls,
        urls: Sequence[str],
        name: str,
        patience: float = PATIENCE,
        ca_certificate: Path | None = None,
    ) -> Self:
        """Connect to the first of `urls` that answers.

        `ca_certificate` verifies servers that speak TLS; None for the system's authorities. Raises
        `Unavailable` if none answers within `patience` seconds, and `BrokerTooOld`.
        """
        client = BrokerClient()
        connection = cls(client)
        try:
            # The driver itself would try for ever, at the start too.
            async with asyncio.timeout(patience):
                await client.connect(
                    servers=[without_login(url) for url in urls],
                    **login(urls),
                    tls=None if ca_certificate is None else _trusting(ca_certificate),
                    name=name,
                    inbox_prefix=inboxes_for(urls),
                    max_reconnect_attempts=-1,
                    # This process does not need to receive its own messages: see `on_hint`.
                    no_echo=True,
                    reconnect_time_wait=_RECONNECT_WAIT,
                    connect_timeout=2,
                    ping_interval=5,
                    max_outstanding_pings=2,
                    pending_size=_PENDING_BYTES,
                    allow_reconnect=True,
                    reconnected_cb=connection._on_reconnect,
                    disconnected_cb=connection._on_disconnect,
                    closed_cb=connection._on_close,
                    error_cb=connection._on_error,
                    # All subjects are ours, made in `subjects`.
                    skip_subject_validation=True,
                )
                _check_version(connection.server_info)
                await connection._open()
        except BrokerTooOld:
            await connection.close()
            raise
        except (NatsError, OSError, TimeoutError) as exc:
            await connection.close()
            raise Unavailable(f"no NATS server answers: {client.last_error or exc!r}") from exc
        return connection

    async def _open(self) -> None:
        """Subscribe to what every connection must hear."""
        await self._requests.start()

    async def close(self) -> None:
        """Close the connection after outgoing messages have left."""
        self._client.is_leaving = True
        try:
            if self._client.is_connected:
                # Not the driver's drain, which waits 15 s for a server that hangs.
                await self._client.flush(_FLUSH_SECONDS)
        except (NatsError, OSError, RuntimeError) as exc:
            log.warning("broker_not_flushed", reason=repr(exc))
        try:
            await self._client.close()
        # uvloop raises RuntimeError for a write to a lost connection.
        except (NatsError, OSError, RuntimeError) as exc:
            log.warning("broker_not_closed", reason=repr(exc))

    async def until_ended(self) -> None:
        """Wait until the connection has ended, which happens when the broker refuses its login.

        Raises `ConnectionEnded`.
        """
        await self._closed.wait()
        raise ConnectionEnded(f"The broker has ended the connection: {self._client.last_error!r}")

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be reached right now."""
        return self._client.is_connected

    @property
    def server_certificate(self) -> bytes | None:
        """The certificate (DER) of the server that we are connected to; None without TLS."""
        return self._client.server_certificate()

    @property
    def max_payload(self) -> int:
        """Bytes that one message may hold, as the broker says."""
        return int(self._client.max_payload)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever a lost connection is back: hints may have been missed."""
        self._reconnected.append(callback)

    def on_hint(self, callback: Callable[[str, bytes], None]) -> None:
        """Call `callback(subject, payload)` for each hint that this connection itself sends."""
        self._hinted.append(callback)

    async def hint(self, subject: str, payload: bytes = b"") -> None:
        """Publish a hint, which is neither stored nor acknowledged. A failure only delays.

        Waiting calls in this process get it by `on_hint`, without the broker.
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

    async def ask(
        self,
        subject: str,
        body: bytes | memoryview,
        headers: Headers | None = None,
        timeout: float = ATTEMPT,
        enough: Enough | None = None,
    ) -> Msg:
        """Send one request and return the answer; of several, the first that is `enough`.

        Raises `NobodyListens` or `NotPermitted`; `Unavailable` if no such answer comes within
        `timeout` seconds, or if none can come any more (see `break_off`).
        """
        began = time.monotonic()
        try:
            return await self._requests.ask(subject, body, headers, timeout, enough)
        except MaxPayloadError as exc:
            raise BrokerRefused(f"{len(body)} bytes are more than the broker takes") from exc
        except NoRespondersError as exc:
            raise NobodyListens(f"nobody serves {subject}") from exc
        except (NatsError, TimeoutError, OSError) as exc:
            if any(at >= began and one == subject.lower() for at, one in self._forbidden):
                raise NotPermitted(f"NATS does not let this user ask {subject}") from exc
            raise Unavailable(f"no answer on {subject}: {exc!r}") from exc

    def break_off(self, concerned: Callable[[str], bool]) -> None:
        """Let requests on concerned subjects fail with `Unavailable`: they may never be answered."""
        self._requests.break_off(concerned)

    async def answer(self, request: Msg, body: bytes, headers: Headers) -> None:
        """Answer a request that came by `subscribe`.

        The answer goes only to an inbox. Otherwise a caller could make this connection publish on
        any subject, for example a request to purge a stream.
        """
        if not is_inbox(request.reply):
            log.warning("answer_to_no_inbox", subject=request.subject, reply=request.reply)
            return
        try:
            await self._client.publish(request.reply, body, headers=dict(headers) or None)
        except NatsError as exc:
            # The caller asks again.
            log.warning("answer_lost", subject=request.subject, reason=repr(exc))

    async def acknowledge(self, message: Msg) -> None:
        """Let the broker send further pieces of a copy."""
        await self._client.publish(message.reply, b"")

    def new_inbox(self) -> str:
        """Return a subject that this connection alone hears."""
        return self._client.new_inbox()

    @property
    def server_info(self) -> dict[str, Any]:
        """What the connected server reported of itself on connecting."""
        return dict(self._client._server_info)

    async def _on_error(self, error: Exception) -> None:
        if found := _FORBIDDEN.search(str(error)):
            forbidden = found[1].lower()
            self._forbidden.append((time.monotonic(), forbidden))
            self.break_off(lambda asked: asked.lower() == forbidden)
        if self._client.is_connected:
            log.warning("broker_error", reason=repr(error))
        else:
            self._outage.failed(repr(error))

    async def _on_disconnect(self) -> None:
        self._requests.pause()
        if not self._client.is_leaving:
            log.warning("broker_disconnected")

    async def _on_close(self) -> None:
        self._closed.set()

    async def _on_reconnect(self) -> None:
        self._requests.go_on()
        self._outage.worked()
        url = self._client.connected_url
        log.info("broker_reconnected", server=url.netloc if url else "")
        for callback in self._reconnected:
            callback()
        since = time.monotonic() - _RECENT
        for given_at, subject, payload in list(self._hints):
            if given_at > since:
                await self._publish_hint(subject, payload)


def _check_version(server: Mapping[str, Any]) -> None:
    said = str(server.get("version", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", said)[:2])
    # A server with an unreadable version may be newer than any that we know.
    if len(numbers) == 2 and numbers < OLDEST_BROKER:
        needed = ".".join(map(str, OLDEST_BROKER))
        raise BrokerTooOld(
            f"The NATS server is of version {said}, but flower-nats needs {needed} or newer, "
            "because older servers cannot expire single messages. Remedy: use nats-server "
            f"{needed} or newer on all servers."
        )


def _trusting(ca_certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_certificate)
