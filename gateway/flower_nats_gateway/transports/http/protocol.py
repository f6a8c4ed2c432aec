"""One HTTP connection: uvicorn's, with limits that uvicorn does not have."""

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
"""Seconds for the head of a request, after its first byte."""

_LONGEST_HEAD = 64 * 1024
"""Bytes of the head of a request."""

_IDLE_SECONDS = 75.0
"""Seconds for which a connection without calls is kept: longer than clients (httpx: 5 s) and
balancers (60 s) keep it. If we closed first, a call could be on its way to us."""

_DISCARDED = 64 * 1024 * 1024
"""Bytes of an unwanted body that are still read: a client that was cut off while it still sends
would not see its answer. The limit bounds the bytes that a stranger can make us read."""


_LAST_WORDS_SECONDS = 1.0
"""Seconds that a client has to read why its connection ends. Data that it sends in this time is
read and dropped: with unread data, the system would reset the connection before the client has read
anything."""


# `notice` logs in our form what uvicorn would log about strangers.
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
            # Nothing here uses balancers' statements about clients.
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
        """Accept the connection, on which data must come soon."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Parse the data that has come."""
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
        """Answer invalid HTTP, and disconnect."""
        notice(self._host, "malformed_http_request", reason=msg)
        self._is_over = True
        self._end_head_limit()
        if not _is_idle(self.cycle):
            if self.pipeline or self.cycle.response_started:
                self.transport.abort()
                return
            # The call in it is not served further.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(errors.plain(400, msg).last_words())
        self.loop.call_later(_LAST_WORDS_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        """Note the beginning of a request."""
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
        """Take a part of a body, or drop it if the call is over."""
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > _DISCARDED:
                self.transport.abort()
        super().on_body(body)

    def on_response_complete(self) -> None:
        """Go on, once the system has the answer or the answer waits for its reader."""
        super().on_response_complete()
        if self._reader_limit is None and (unread := self.transport.get_write_buffer_size()):
            self._await_reader(unread)

    def _await_reader(self, unread: int) -> None:
        # Neither uvicorn's timers nor the system end a connection if its client takes nothing.
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
        """Whether all of the request has come; of several requests, all of the last one."""
        return not self.cycle.more_body

    def unread(self) -> bytes | None:
        """Return the unread part of the last request's body, if all of the body has come."""
        return bytes(self.cycle.body) if self.has_request else None

    def ends_with_client(self, task: asyncio.Task[Any] | None) -> None:
        """Cancel this task when the client has gone; None to cancel none."""
        self._ends_with_client = task
        if task is not None and self.is_gone:
            task.cancel()

    def hold_little(self) -> None:
        """Make the system buffer little of an answer that may last for ever."""
        hold_little(self.transport.get_extra_info("socket"))

    def cut_off(self) -> None:
        """End the connection at once."""
        # Otherwise uvicorn would log an error about an unanswered call.
        self.cycle.disconnected = True
        if self.is_gone:
            return
        # This makes the system drop an unread answer at once.
        reset(self.transport.get_extra_info("socket"))
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the connection, and end work that is only for its client."""
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
