"""One HTTP connection: uvicorn's, with limits that it does not have."""

import asyncio
import logging
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from flower_nats_gateway.calls.bodies import PAUSE
from flower_nats_gateway.transports.http import errors
from flower_nats_gateway.transports.http.app import HttpApp
from flower_nats_gateway.transports.http.connection import CONNECTION
from flower_nats_gateway.transports.http.sockets import hold_little, reset
from flower_nats_gateway.transports.notices import notice

_HEAD_SECONDS = 20.0
"""Seconds in which the head of a request must come, once its first byte has."""

_LONGEST_HEAD = 64 * 1024
"""Bytes of the head of a request."""

_IDLE_SECONDS = 75.0
"""Seconds for which a connection without calls is kept: longer than clients do (httpx: 5 s) and
balancers (60 s). The side that closes first must not be ours, or a call may be on its way to us then."""

_DISCARDED = 64 * 1024 * 1024
"""Bytes of a body that is not wanted any more. They are read all the same: a client that were cut off
while it still sends would not see its answer. This bounds what a stranger can make us read."""


_LAST_WORDS_SECONDS = 1.0
"""Seconds that a client has to read why its connection ends. What it sends meanwhile is dropped: unread,
it would have the system cut the connection off before the client has read anything."""


# What it would say of strangers in lines of its own, `notice` says in ours.
logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


class Connections:
    """The connections of one listener, and how they are served."""

    def __init__(self, app: HttpApp) -> None:
        self._config = Config(
            cast(Any, app),
            lifespan="off",
            ws="none",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            # What balancers say of clients is for nobody here.
            proxy_headers=False,
            timeout_keep_alive=cast(int, _IDLE_SECONDS),
        )
        self._config.load()
        self._state = ServerState()

    def new(self) -> asyncio.Protocol:
        """Return the protocol of a connection that has just come."""
        return _Connection(self._config, self._state)

    def __len__(self) -> int:
        return len(self._state.connections)

    def shut_down(self) -> None:
        """Close each connection once it has its answers."""
        for one in list(self._state.connections):
            cast(HttpToolsProtocol, one).shutdown()

    def abort(self) -> None:
        """Cut every connection off."""
        for one in list(self._state.connections):
            cast(HttpToolsProtocol, one).transport.abort()


class _Connection(HttpToolsProtocol):
    def __init__(self, config: Config, state: ServerState) -> None:
        super().__init__(config, state, {})
        self._in_head = False
        self._head_bytes = 0
        self._discarded = 0
        self._head_limit: asyncio.TimerHandle | None = None
        self._reader_limit: asyncio.TimerHandle | None = None
        self._is_over = False
        self._ends_with_client: asyncio.Task[Any] | None = None
        self.is_gone = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, on which something must come before long."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._is_over:
            return
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _LONGEST_HEAD:
                self.send_400_response("The head of the request is too long.")
            elif self._head_limit is None:
                self._head_limit = self.loop.call_later(_HEAD_SECONDS, self._give_head_up)
        elif self.timeout_keep_alive_task is None and _is_idle(self.cycle):
            # Blank lines between requests must not keep a connection for ever.
            self._await_request()

    def _await_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _give_head_up(self) -> None:
        notice(self._host, "http_head_too_slow", seconds=_HEAD_SECONDS)
        self.transport.abort()

    @property
    def _host(self) -> str:
        return self.client[0] if self.client else ""

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and hang up."""
        notice(self._host, "malformed_http_request", reason=msg)
        self._is_over = True
        self._end_head_limit()
        if not _is_idle(self.cycle):
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()
                return
            # The call that came with it is served no further.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(errors.plain(400, msg).last_words())
        self.loop.call_later(_LAST_WORDS_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        """Note the begin of a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._discarded = 0
        cast(dict[str, Any], self.scope)[CONNECTION] = self

    def on_headers_complete(self) -> None:
        """Note the end of a request's head."""
        self._in_head = False
        self._end_head_limit()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body in, or drop it if the call is over."""
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > _DISCARDED:
                self.transport.abort()
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on, once an answer has been given to the system or waits for its reader."""
        super().on_response_complete()
        if self._reader_limit is None and (unread := self.transport.get_write_buffer_size()):
            self._await_reader(unread)

    def _await_reader(self, unread: int) -> None:
        # Neither a timer of uvicorn's nor the system ends a connection whose client takes nothing.
        self._reader_limit = self.loop.call_later(PAUSE, self._give_reader_up, unread)

    def _give_reader_up(self, unread: int) -> None:
        self._reader_limit = None
        still_unread = self.transport.get_write_buffer_size()
        if still_unread >= unread:
            self.cut_off()
        elif still_unread:
            self._await_reader(still_unread)

    @property
    def has_request(self) -> bool:
        """Whether all of the request has come; of requests in a row, all of the last one."""
        return not self.cycle.more_body

    def unread(self) -> bytes | None:
        """Return what is unread of the last request's body, if all of that has come."""
        return bytes(self.cycle.body) if self.has_request else None

    def ends_with_client(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel a task when the client has gone; None: no more."""
        self._ends_with_client = task
        if task is not None and self.is_gone:
            task.cancel()

    def hold_little(self) -> None:
        """Have the system hold little of an answer that may last for ever."""
        hold_little(self.transport.get_extra_info("socket"))

    def cut_off(self) -> None:
        """End the connection at once."""
        # Uvicorn would complain of a call that is not answered and whose client is still there.
        self.cycle.disconnected = True
        if self.is_gone:
            return
        # What the system has of an answer that nobody reads goes at once.
        reset(self.transport.get_extra_info("socket"))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection, and end what is for its client alone."""
        self.is_gone = True
        if self._ends_with_client is not None:
            self._ends_with_client.cancel()
        self._end_head_limit()
        self._unset_keepalive_if_required()
        if self._reader_limit is not None:
            self._reader_limit.cancel()
        super().connection_lost(exc)

    def _end_head_limit(self) -> None:
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None


def _is_idle(cycle: RequestResponseCycle | None) -> bool:
    return cycle is None or cycle.response_complete
