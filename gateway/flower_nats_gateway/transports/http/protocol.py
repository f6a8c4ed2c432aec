"""One HTTP connection: uvicorn's, with limits that it does not have."""

import asyncio
import logging
from typing import Any, cast

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from flower_nats_gateway.transports.http import errors
from flower_nats_gateway.transports.http.app import ABORT, HttpApp
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

    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > _LONGEST_HEAD:
                self.send_400_response("The head of the request is too long.")
            elif self._head_limit is None:
                self._head_limit = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)
        elif self.timeout_keep_alive_task is None and _is_idle(self.cycle):
            # Blank lines between requests must not keep a connection for ever.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and hang up."""
        host = self.client[0] if self.client else ""
        notice(host, "malformed_http_request", reason=msg)
        answer = errors.plain(400, msg)
        head = (
            "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n"
            f"content-length: {len(answer.body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + answer.body)
        self.transport.close()

    def on_message_begin(self) -> None:
        """Note the begin of a request."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        self._discarded = 0
        cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort

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

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the connection."""
        self._end_head_limit()
        super().connection_lost(exc)

    def _end_head_limit(self) -> None:
        if self._head_limit is not None:
            self._head_limit.cancel()
            self._head_limit = None


def _is_idle(cycle: RequestResponseCycle | None) -> bool:
    return cycle is None or cycle.response_complete
