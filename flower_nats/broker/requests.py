"""Request/reply over one inbox, as lean as it gets: a gateway makes some twenty for each message.

The driver's own way costs about twice as much, and waits for answers that cannot come any more until
their time is over; here whoever asked hears of a lost connection at once, and asks again.
"""

import asyncio
import itertools
from collections.abc import Callable, Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ConnectionClosedError, NoRespondersError, TimeoutError

_STATUS = "Status"
_NO_RESPONDERS = "503"

Enough = Callable[[Msg], bool]
"""Hears an answer; returns whether no further one is waited for."""


class Requests:
    """The requests of one connection that wait for their answers."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = ""
        self._numbers = itertools.count()
        self._waiting: dict[str, tuple[asyncio.Future[Msg], Enough]] = {}

    async def start(self) -> None:
        """Open the inbox; once, when the client is connected."""
        self._inbox = self._client.new_inbox() + "."
        await self._client.subscribe(
            self._inbox + "*",
            cb=self._on_answer,
            pending_msgs_limit=-1,
            pending_bytes_limit=-1,
        )

    async def ask(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str] | None,
        timeout: float,
        enough: Enough | None = None,
    ) -> Msg:
        """Send one request and return the answer; of several, the first that is `enough`.

        Raises the driver's `NoRespondersError` if nobody listens, `TimeoutError` if no answer comes
        within `timeout` seconds, and `ConnectionClosedError` if the connection breaks meanwhile.
        """
        loop = asyncio.get_running_loop()
        token = str(next(self._numbers))
        future: asyncio.Future[Msg] = loop.create_future()
        self._waiting[token] = future, enough or _first
        timer = loop.call_later(timeout, _fail, future, TimeoutError())
        try:
            await self._client.publish(
                subject, body, self._inbox + token, dict(headers) if headers else None
            )
            answer = await future
        finally:
            timer.cancel()
            future.cancel()
            del self._waiting[token]
        if _nobody_listens(answer):
            raise NoRespondersError
        return answer

    def break_off(self) -> None:
        """Tell those who wait that the connection is lost, and their answers perhaps with it."""
        for future, _ in self._waiting.values():
            _fail(future, ConnectionClosedError())

    async def _on_answer(self, message: Msg) -> None:
        future, enough = self._waiting.get(message.subject[len(self._inbox) :], (None, _first))
        if future is None or future.done():
            return
        if _nobody_listens(message) or enough(message):
            future.set_result(message)


def _first(_: Msg) -> bool:
    return True


def _nobody_listens(answer: Msg) -> bool:
    return answer.headers is not None and answer.headers.get(_STATUS) == _NO_RESPONDERS


def _fail(future: "asyncio.Future[Msg]", reason: Exception) -> None:
    if not future.done():
        future.set_exception(reason)
