"""Request/reply over one inbox, with little overhead: a gateway makes some 20 requests per message.

The driver's own requests cost about twice as much, and wait until the time-out for answers that
cannot come any more. Here a caller learns of a lost connection at once, and asks again.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, cast

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, Error, NoRespondersError, TimeoutError

STATUS = "Status"
"""Header of a message that is a status, not an answer, for example that nobody listens. Its value
is a number."""

_NO_RESPONDERS = "503"

Enough = Callable[[Msg], bool]
"""Hears an answer; returns whether the request is done."""


class BrokenOff(Error):
    """The server may never answer this request."""


class _Waiting(NamedTuple):
    """A request that waits for its answer."""

    subject: str
    future: "asyncio.Future[Msg]"
    enough: Enough


class Requests:
    """The requests of one connection that wait for their answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, _Waiting] = {}
        self._connected = asyncio.Event()

    async def start(self) -> None:
        """Open the inbox; once, when the client is connected."""
        self._inbox = self._client.new_inbox() + "."
        await self._client.subscribe(
            self._inbox + "*",
            cb=self._on_answer,
            pending_msgs_limit=-1,
            pending_bytes_limit=-1,
        )
        self.go_on()

    async def ask(
        self,
        subject: str,
        body: bytes | memoryview,
        headers: Mapping[str, str] | None,
        timeout: float,
        enough: Enough | None = None,
    ) -> Msg:
        """Send one request and return the answer; of several, the first that is `enough`.

        Raises the driver's `NoRespondersError` if nobody listens, `TimeoutError` if no answer comes
        within `timeout` seconds, `ConnectionClosedError` if there is no connection in that time,
        and `BrokenOff` if the connection breaks or `break_off` concerns the request.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        if not self._client.is_connected:
            await self._until_connected(timeout)
        token = str(next(self._numbers))
        future: asyncio.Future[Msg] = loop.create_future()
        self._waiting[token] = _Waiting(subject, future, enough or _first)
        timer = loop.call_at(deadline, _fail, future, TimeoutError())
        try:
            # The driver only joins the payload to bytes, which works with a memoryview.
            payload = cast(bytes, body)
            await self._client.publish(
                subject, payload, self._inbox + token, dict(headers) if headers else None
            )
            answer = await future
        finally:
            timer.cancel()
            future.cancel()
            del self._waiting[token]
        if _nobody_listens(answer):
            raise NoRespondersError
        return answer

    async def _until_connected(self, timeout: float) -> None:
        """Wait for the connection; raises `ConnectionClosedError`.

        The driver would keep the request and send it when the connection is back, long after the
        caller was told of a failure. Runs would start that no caller waits for.
        """
        with suppress(asyncio.TimeoutError):
            async with asyncio.timeout(timeout):
                await self._connected.wait()
        if not self._client.is_connected:
            raise ConnectionClosedError

    def go_on(self) -> None:
        """Resume requests that wait for the connection, which is back."""
        self._connected.set()

    def pause(self) -> None:
        """Note that the connection is lost, and all answers on their way with it."""
        self._connected.clear()
        self.break_off(lambda _: True)

    def break_off(self, concerned: Callable[[str], bool]) -> None:
        """Fail requests on concerned subjects: their answers may never come."""
        for subject, future, _ in self._waiting.values():
            if concerned(subject):
                _fail(future, BrokenOff())

    async def _on_answer(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject[len(self._inbox) :])
        if waiting is None or waiting.future.done():
            return
        if _nobody_listens(message) or waiting.enough(message):
            waiting.future.set_result(message)


def _first(_: Msg) -> bool:
    return True


def _nobody_listens(answer: Msg) -> bool:
    return answer.headers is not None and answer.headers.get(STATUS) == _NO_RESPONDERS


def _fail(future: "asyncio.Future[Msg]", reason: Exception) -> None:
    if not future.done():
        future.set_exception(reason)
