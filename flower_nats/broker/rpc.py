"""RPCs over NATS request/reply: gateways ask, superlinks in the queue group answer.

The body is the plain protobuf message (msgpack for our own services). Headers carry the caller and
the outcome. A body above `INLINE` bytes is deposited in JetStream, and only its ticket is sent.

A superlink that needs long for a call says every second that it has the call in hand, if the
gateway has told how long it waits. While the gateway hears that, it asks no other superlink.
"""

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from typing import Any, cast

import msgpack
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from flower_nats.broker import subjects
from flower_nats.broker.connection import PATIENCE, Connection
from flower_nats.broker.core_connection import NotPermitted
from flower_nats.broker.large_bodies import INLINE, LargeBodies
from flower_nats.broker.members import FAREWELL, PULSE, Members
from flower_nats.logs import get_logger
from flower_nats.metrics import FAULTS, Metric, gauge
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.outage import Outage
from flower_nats.wire.methods import BY_NAME

log = get_logger(__name__)

Handler = Callable[[bytes, Caller], Awaitable[bytes]]

_CALLER = "Fn-Caller"
_TICKET = "Fn-Ticket"
_ERROR = "Fn-Error"

_BY = "Fn-By"
"""Header of an UNAVAILABLE answer: the superlink that gave it."""

_UNAVAILABLE = str(int(ErrorCode.UNAVAILABLE))

_PATIENCE = "Fn-Patience"
"""Header of a request: seconds that the caller waits. Such a caller understands `_IN_HAND`."""

_IN_HAND = "Fn-In-Hand"
"""Header of a message before the answer: the superlink works on the call."""

_SIGN_EVERY = 1.0
"""Seconds between two signs that a call is in hand. Two of them may be lost."""

_FIRST_TRY = 3.0
"""Seconds to wait for an answer before the request goes to another replica."""

_FIRST_LOOK = 0.5
"""The same for calls that change nothing: serving them twice costs little."""

_CALLER_FIELDS = tuple(Caller.__dataclass_fields__)

_TAKES_LONG = frozenset({(subjects.INTERNAL, "Download")})
"""Calls of our own for which a superlink may need seconds, because it packs a model."""

_LONGEST_PAUSE = 1.0
"""Seconds between two tries, at most."""

_FIRST_REST = 0.4
"""About how many seconds callers pause when all superlinks said that they cannot serve. Without
random pauses, all refused callers would come back at the same moment."""

_LONGEST_REST = 2.0
"""The longest such pause: each pause is twice as long as the one before."""

_BACKLOG = 1.0
"""Seconds after a stop of the process in which requests may be old ones that waited."""


class _Busy(Unavailable):
    """A superlink has answered that it cannot serve a call right now."""

    def __init__(self, detail: str, superlink: str) -> None:
        super().__init__(detail)
        self.superlink = superlink


class RpcClient:
    """Asks superlinks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._blobs = LargeBodies(connection)
        self._superlinks = Members()
        self._outage = Outage(log, "rpc_retried", "rpc_answered")
        self.retries = 0
        """Requests that were made again because no superlink answered."""

    async def call(
        self,
        service: str,
        method: str,
        body: bytes,
        caller: Caller = Caller(),  # noqa: B008  (frozen)
        *,
        patience: float = PATIENCE,
    ) -> bytes:
        """Have a superlink serve an RPC.

        Handlers are idempotent, so an attempt without an answer is made again, for up to `patience`
        seconds. Raises the error of the handler, or `Unavailable`.
        """
        headers = {_CALLER: _encode_caller(caller)}
        ticket = ""
        if len(body) > INLINE:
            ticket = headers[_TICKET] = await self._blobs.put(body)
            body = b""
        # No second superlink should fetch a large body while the first one works on it.
        takes_long = bool(ticket) or _takes_long(service, method)
        try:
            return await self._answer(
                service, method, body, headers, patience, _FIRST_TRY, takes_long=takes_long
            )
        finally:
            if ticket:
                self._blobs.drop(ticket)

    async def ask(
        self,
        method: str,
        *,
        patience: float = PATIENCE,
        request_id: str = "",
        service: str = subjects.INTERNAL,
        **question: Any,
    ) -> dict[str, Any]:
        """Call a method of one of our own services, such as `Internal` or `Operator`.

        A request that is made twice with the same `request_id` is carried out once.
        """
        body = cast(bytes, msgpack.packb(question))
        caller = Caller(request_id=request_id or uuid.uuid4().hex)
        return _unpack(await self.call(service, method, body, caller, patience=patience))

    async def look_up(self, method: str, **question: Any) -> dict[str, Any]:
        """Call a method of the `Internal` service that changes nothing.

        So it may be served twice: if no answer comes soon, another superlink is asked. Raises as
        `call` does.
        """
        body = cast(bytes, msgpack.packb(question))
        headers = {_CALLER: _encode_caller(Caller())}
        return _unpack(
            await self._answer(subjects.INTERNAL, method, body, headers, PATIENCE, _FIRST_LOOK)
        )

    def note_superlink(self, superlink: str, sign: bytes) -> None:
        """Note a sign of life, to avoid stopped superlinks and to ask again when one has left."""
        leaves = sign == FAREWELL
        self._superlinks.note(superlink, leaves=leaves)
        if leaves:
            # A NATS server may have passed a request on to the superlink's server before it learned
            # that the superlink has left. The superlink's server drops such a request silently.
            self._connection.break_off(lambda asked: asked.startswith(subjects.API))

    async def _answer(
        self,
        service: str,
        method: str,
        body: bytes,
        headers: Mapping[str, str],
        patience: float,
        timeout: float,
        *,
        takes_long: bool = False,
    ) -> bytes:
        """Ask one superlink after the other; wait `timeout` seconds for the first one."""
        deadline = time.monotonic() + patience
        superlink, pause, rest = self._superlinks.to_ask(), 0.1, _FIRST_REST
        busy: set[str] = set()
        while True:
            if superlink is None:
                subject = subjects.api(service, method)
            else:
                subject = subjects.one(superlink, service, method)
            try:
                left = max(0.5, deadline - time.monotonic())
                timeout = min(timeout, left)
                if takes_long:
                    message = await self._ask_at_length(subject, body, headers, timeout, left)
                else:
                    message = await self._connection.ask(subject, body, headers, timeout)
                answer = await self._read(message)
                self._outage.worked()
                return answer
            except Unavailable as exc:
                if isinstance(exc, NotPermitted) or time.monotonic() >= deadline:
                    raise
                self.retries += 1
                self._outage.failed(f"{subject}: {exc.detail}")
                if isinstance(exc, _Busy):
                    busy.add(exc.superlink)
            timeout *= 2
            superlink = self._superlinks.to_ask_again(besides=busy)
            if busy and superlink is None:
                # All superlinks have said that they are busy.
                busy.clear()
                left = max(0.0, deadline - time.monotonic())
                await asyncio.sleep(min(left, rest * random.uniform(0.5, 1.5)))
                rest = min(2 * rest, _LONGEST_REST)
                superlink = self._superlinks.to_ask_again()
            else:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ask_at_length(
        self, subject: str, body: bytes, headers: Mapping[str, str], timeout: float, left: float
    ) -> Msg:
        """Ask one superlink, and wait while it says that it has the call in hand.

        Raises `Unavailable` if it says nothing for `timeout` seconds, or does not answer within
        `left`.
        """
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(timeout) as silence:

                def is_answer(message: Msg) -> bool:
                    if _IN_HAND not in (message.headers or {}):
                        return True
                    silence.reschedule(clock() + timeout)
                    return False

                headers = {**headers, _PATIENCE: f"{left:.1f}"}
                return await self._connection.ask(subject, body, headers, left, is_answer)
        except TimeoutError as exc:
            raise Unavailable(f"no answer on {subject}, and no sign of work") from exc

    async def _read(self, message: Msg) -> bytes:
        headers = message.headers or {}
        if _ERROR in headers:
            detail, public_details = msgpack.unpackb(message.data)
            code = ErrorCode(int(headers[_ERROR]))
            if code is ErrorCode.UNAVAILABLE:
                raise _Busy(detail, headers.get(_BY, ""))
            raise ApiError(code, detail, public_details)
        if ticket := headers.get(_TICKET):
            body = await self._blobs.get(ticket)
            self._blobs.drop(ticket)
            return body
        return message.data


class RpcServer:
    """Serves RPCs in the queue group of superlinks.

    A process that was stopped (SIGSTOP, a paused machine) finds old requests that have waited for
    it. Their callers have asked another replica since. Serving such a request late could undo a
    later change, for example a node's return after its farewell. So old requests are dropped.
    """

    def __init__(self, connection: Connection, handlers: Mapping[tuple[str, str], Handler]) -> None:
        self._connection = connection
        self._blobs = LargeBodies(connection)
        self._handlers = handlers
        self._id = uuid.uuid4().hex
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()
        self._faults: Counter[tuple[str, str]] = Counter()
        self._pulse: asyncio.Task[None] | None = None
        self._awake_at = time.monotonic()
        self._fresh_from = 0.0

    async def start(self) -> None:
        """Begin to take requests."""
        for service, method in self._handlers:
            subscription = await self._connection.subscribe(
                subjects.api(service, method), self._take, queue=subjects.WORKERS
            )
            self._subscriptions.append(subscription)
        alone = await self._connection.subscribe(subjects.all_of_one(self._id), self._take)
        self._subscriptions.append(alone)
        self._pulse = asyncio.create_task(self._stay_awake(), name="rpc pulse")

    def metrics(self) -> list[Metric]:
        """Return how many requests there are, and how many have met a bug."""
        faults = tuple(
            ({"api": service, "method": method}, float(count))
            for (service, method), count in self._faults.items()
        )
        return [
            gauge("requests_in_hand", "Requests that are being served.", len(self._running)),
            Metric("faults_total", FAULTS, faults),
        ]

    async def drain(self, timeout: float = 8.0) -> None:
        """Take no more requests and finish those in hand, for at most `timeout` seconds.

        Requests that the broker sends before it sees our unsubscription are in hand, too: dropping
        them would cost the callers the time of a try.
        """
        deadline = time.monotonic() + timeout
        if self._pulse is not None:
            self._pulse.cancel()
        drains = [asyncio.create_task(cast(Any, one).drain()) for one in self._subscriptions]
        self._subscriptions.clear()
        if drains:
            await asyncio.wait(drains, timeout=timeout)
        if self._running:
            await asyncio.wait(self._running, timeout=max(0.0, deadline - time.monotonic()))
        # No request reaches this superlink after this hint, so callers may ask again.
        await self._connection.hint(subjects.event_superlink(self._id), FAREWELL)

    async def _stay_awake(self) -> None:
        while True:
            self._note_stop()
            self._awake_at = time.monotonic()
            if self._awake_at >= self._fresh_from:
                await self._connection.hint(subjects.event_superlink(self._id))
            await asyncio.sleep(PULSE)

    def _note_stop(self) -> None:
        now = time.monotonic()
        # After a shorter stop, the caller may still wait for the answer.
        if now - self._awake_at > _FIRST_TRY:
            self._fresh_from = now + _BACKLOG

    async def _take(self, message: Msg) -> None:
        name = subjects.rpc(message.subject)
        self._note_stop()
        if time.monotonic() < self._fresh_from:
            log.info("stale_rpc_dropped", rpc=name)
            return
        task = asyncio.create_task(self._serve(name, message), name=f"rpc {name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, name: str, message: Msg) -> None:
        service, _, method = name.partition(".")
        headers: dict[str, str] = {}
        try:
            async with self._in_hand(message):
                body = await self._handle(service, method, message)
            if len(body) > INLINE:
                headers[_TICKET] = await self._blobs.put(body)
                body = b""
        except ApiError as exc:
            headers[_ERROR] = str(int(exc.code))
            body = bytes(msgpack.packb((exc.detail, exc.public_details)))
        except Exception as exc:
            # An error in this process, which another try may avoid, must not end a stock client.
            log.exception("rpc_failed", rpc=name)
            self._faults[(service, method)] += 1
            headers[_ERROR] = _UNAVAILABLE
            body = bytes(msgpack.packb((repr(exc), None)))
        if headers.get(_ERROR) == _UNAVAILABLE:
            headers[_BY] = self._id
        await self._connection.answer(message, body, headers)

    @asynccontextmanager
    async def _in_hand(self, message: Msg) -> AsyncIterator[None]:
        """While the block runs, say that the call is in hand if the caller understands that."""
        if _PATIENCE not in (message.headers or {}):
            yield
            return
        saying = asyncio.create_task(self._say_in_hand(message), name="rpc in hand")
        try:
            yield
        finally:
            saying.cancel()

    async def _say_in_hand(self, message: Msg) -> None:
        while True:
            await asyncio.sleep(_SIGN_EVERY)
            await self._connection.answer(message, b"", {_IN_HAND: "1"})

    async def _handle(self, service: str, method: str, message: Msg) -> bytes:
        headers = message.headers or {}
        answer_by = time.monotonic() + float(headers.get(_PATIENCE, PATIENCE))
        body = message.data
        if ticket := headers.get(_TICKET):
            body = await self._blobs.get(ticket)
        handler = self._handlers[(service, method)]
        caller = _decode_caller(headers.get(_CALLER, ""))
        return await handler(body, replace(caller, answer_by=answer_by))


def _takes_long(service: str, method: str) -> bool:
    public = BY_NAME.get((service, method))
    return (service, method) in _TAKES_LONG or (public is not None and public.takes_long)


def _unpack(answer: bytes) -> dict[str, Any]:
    return cast(dict[str, Any], msgpack.unpackb(answer, strict_map_key=False))


def _encode_caller(caller: Caller) -> str:
    return bytes(msgpack.packb(asdict(caller))).hex()


def _decode_caller(value: str) -> Caller:
    said: dict[str, Any] = msgpack.unpackb(bytes.fromhex(value)) if value else {}
    # While replicas are upgraded one by one, a newer gateway may send unknown fields.
    return Caller(**{name: said[name] for name in _CALLER_FIELDS if name in said})
