"""The HTTP edge: decodes, calls, encodes, and translates errors for HTTP. It has no rules.

It is an ASGI application. One call is one POST of a protobuf message; the path says which method it is
(flwr 1.42 `supercore/protobuf/`). `GET /health` tells balancers whether this gateway can serve.
"""

import asyncio
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from flower_nats.model.caller import Caller
from flower_nats.model.doors import wrong_port
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.wire.methods import BY_NAME, Bulk, Method
from flower_nats_gateway.api.page import ServePage
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.calls.answers import Answer, LargeAnswer
from flower_nats_gateway.calls.bodies import Body
from flower_nats_gateway.calls.body_limit import SMALL, BodyLimit
from flower_nats_gateway.calls.call import CLIENT_VERSION, Call
from flower_nats_gateway.calls.wire import HTTP
from flower_nats_gateway.transports.http import errors
from flower_nats_gateway.transports.http.body import (
    PIECE,
    ClientGone,
    Receive,
    Send,
    read,
    send_body,
    send_large_body,
    send_piece,
)
from flower_nats_gateway.transports.http.connection import CONNECTION, Connection
from flower_nats_gateway.transports.http.headers import PROTOBUF, PROTOBUF_STREAM, metadata
from flower_nats_gateway.transports.http.pages import page_answer, read_page_request
from flower_nats_gateway.transports.notices import notice

Scope = dict[str, Any]

_T = TypeVar("_T")

_HEALTH = "/health"

_FRAME = struct.Struct(">I")
"""The length before each message of a stream (flwr 1.42 `supercore/protobuf/framing.py`)."""

_FIRST_MESSAGE = 2.0
"""Seconds for a refusal, or for a first message, before the answer of a stream begins. Clients wait
30 s for the beginning of the answer, and then for ever."""

_SIGN_OF_LIFE = 10.0
"""Seconds for which a stream may be quiet after its first message: less than forgetful NAT routers
and proxies allow."""

_FIRST_PIECE = 64 * 1024
"""Bytes that are sent with the head of a frame: most messages fit completely."""

_CLOSE = (b"connection", b"close")

_PAGES_BELONG_TO = BY_NAME[("Control", "GetLoginDetails")]
"""The method whose rules apply to pages: every caller of the method may load them."""

_PATHS = frozenset(one.http_path for one in BY_NAME.values())
"""The paths of all calls of all APIs."""

_LONGEST_LOGGED = 100
"""Characters of a path or a version that the log shows."""


class _Route:
    """A method, and the objects that all its calls share."""

    def __init__(self, method: Method, service: Service, body_limit: BodyLimit) -> None:
        self.method = method
        self.service = service
        self.body_limit = body_limit


class HttpApp:
    """Serves all APIs."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        is_ready: Callable[[], bool],
        is_leaving: Callable[[], bool],
    ) -> None:
        self._balancers = services[0].balancers
        self._is_ready = is_ready
        self._is_leaving = is_leaving
        self._routes: dict[str, _Route] = {}
        self._pages: dict[str, tuple[_Route, ServePage]] = {}
        self._wrong_port = wrong_port(services[0].methods[0].api)
        """The answer for clients of other APIs if this serves only one API."""
        for service in services:
            arriving, leaving = BodyLimit(), BodyLimit()
            for method in service.methods:
                limit = arriving if method.bulk is Bulk.REQUEST else leaving
                self._routes[method.http_path] = _Route(method, service, limit)
            for path, serve in service.pages.items():
                self._pages[path] = (_Route(_PAGES_BELONG_TO, service, BodyLimit()), serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        route = self._routes.get(scope["path"])
        try:
            if scope["path"] == _HEALTH:
                await self._send(send, self._health(scope))
            elif (page := self._pages.get(scope["path"])) is not None:
                await self._serve_page(*page, scope, receive, send)
            elif route is None:
                text = self._wrong_port if scope["path"] in _PATHS else ""
                await self._refuse(scope, send, errors.plain(404, text or "Not Found"), text)
            elif (refused := _not_a_call(scope)) is not None:
                await self._refuse(scope, send, refused)
            elif route.method.streams:
                await self._serve_stream(route, scope, receive, send)
            else:
                await self._serve_unary(route, scope, receive, send)
        except ClientGone:
            _connection(scope).cut_off()

    async def _refuse(
        self, scope: Scope, send: Send, answer: errors.Answer, remedy: str = ""
    ) -> None:
        headers = metadata(scope["headers"])
        host = self._balancers.client_of(_peer(scope), headers)
        request = f"{scope['method']} {scope['path'][:_LONGEST_LOGGED]}"
        version = str(headers.get(CLIENT_VERSION, ""))[:_LONGEST_LOGGED] or None
        facts = {"status": answer.status, "request": request, "client_version": version}
        notice(host, "http_request_refused", **facts, **({"remedy": remedy} if remedy else {}))
        await self._send(send, answer)

    def _health(self, scope: Scope) -> errors.Answer:
        if scope["method"] not in {"GET", "HEAD"}:
            return errors.plain(405, "Method Not Allowed", (b"allow", b"GET, HEAD"))
        return errors.Answer(200 if self._is_ready() else 503, b"")

    async def _serve_unary(self, route: _Route, scope: Scope, receive: Receive, send: Send) -> None:
        service = route.service
        call = _call(route, scope)
        host = call.host
        service.in_hand.begin(call.peer, host)
        leave = _nothing
        try:
            try:
                service.admission.check(route.method, host)
                body = await _answer(route, call, scope, receive)
                if not isinstance(body, LargeAnswer) and len(body) > SMALL:
                    leave = await service.bodies.leave(HTTP, host, len(body))
            except ClientGone:
                raise
            except Exception as exc:
                error = service.outcomes.refusal(call, exc)
                if error.code is ErrorCode.BODY_TOO_SLOW:
                    raise ClientGone from exc
                await self._send(send, errors.refusal(error))
            else:
                service.outcomes.served(call)
                await self._send_message(route, send, body)
        finally:
            leave()
            service.in_hand.end(call.peer, host)

    async def _serve_page(
        self, route: _Route, serve: ServePage, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["method"] not in {"GET", "POST"}:
            allowed = (b"allow", b"GET, POST")
            await self._refuse(scope, send, errors.plain(405, "Method Not Allowed", allowed))
            return
        service = route.service
        call = _call(route, scope)
        host = call.host
        service.in_hand.begin(call.peer, host)
        try:
            service.admission.check(route.method, host)
            await service.authenticate(call)
            async with _arriving(route, call, scope) as body:
                request = read_page_request(
                    is_post=scope["method"] == "POST",
                    query=scope["query_string"],
                    headers=scope["headers"],
                    body=await read(receive, body, _connection(scope)),
                    address=call.client_address,
                )
            # A download is large, and in memory until it is sent, so only a few of a page run at a
            # time.
            async with route.body_limit.place():
                await self._send(send, page_answer(await serve(request)))
        except ClientGone:
            raise
        except Exception as exc:
            error = service.outcomes.refusal(call, exc)
            await self._send(send, errors.refusal(error))
        finally:
            service.in_hand.end(call.peer, host)

    async def _send_message(self, route: _Route, send: Send, body: Answer) -> None:
        if isinstance(body, LargeAnswer):
            await self._start(send, 200, PROTOBUF, len(body))
            await send_large_body(send, body)
            return
        if route.method.bulk is not Bulk.RESPONSE or len(body) <= SMALL:
            await self._start(send, 200, PROTOBUF, len(body))
            await send_body(send, body)
            return
        async with route.body_limit.place() as place:
            await self._start(send, 200, PROTOBUF, len(body))
            await place.transfer(send_body(send, body))

    async def _serve_stream(
        self, route: _Route, scope: Scope, receive: Receive, send: Send
    ) -> None:
        service = route.service
        call = _call(route, scope)
        host = call.host
        service.in_hand.begin(call.peer, host)
        answer = _StreamedAnswer(self._start, send, route.method)
        try:
            service.admission.check(route.method, host)
            identify = await service.authenticate(call)
            connection = _connection(scope)
            async with _arriving(route, call, scope) as body:
                call.receive(await read(receive, body, connection))
            caller = await identify(call)
            connection.hold_little()
            async with aclosing(service.streams[route.method.name](call, caller)) as messages:
                await _unless_gone(connection, answer.give(messages))
            service.outcomes.served(call)
        except ClientGone:
            raise
        except Exception as exc:
            error = service.outcomes.refusal(call, exc)
            if answer.has_begun:
                # The client must not take the end of the connection for the end of the stream.
                raise ClientGone from exc
            await self._send(send, errors.refusal(error))
        finally:
            service.in_hand.end(call.peer, host)

    async def _send(self, send: Send, answer: errors.Answer) -> None:
        await self._start(send, answer.status, answer.kind, len(answer.body), *answer.headers)
        await send_body(send, answer.body)

    async def _start(
        self, send: Send, status: int, kind: bytes, length: int | None, *more: tuple[bytes, bytes]
    ) -> None:
        headers = [(b"content-type", kind), *more]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        if self._is_leaving():
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": headers})


class _StreamedAnswer:
    """The answer of a streaming RPC."""

    def __init__(self, start: Callable[..., Awaitable[None]], send: Send, method: Method) -> None:
        self._start = start
        self._send = send
        # `flwr log --show` takes the first message for the whole log, so an empty one must not come
        # first.
        self._sign_of_life = _SIGN_OF_LIFE if method.overlooks_empty else None
        self.has_begun = False
        """Whether it is too late for a refusal."""

    async def give(self, messages: AsyncGenerator[bytes, None]) -> None:
        """Send all messages, and the end. Raises what they raise."""
        coming = asyncio.ensure_future(anext(messages, None))
        try:
            await asyncio.wait({coming}, timeout=_FIRST_MESSAGE)
            if coming.done():
                coming.result()  # A refusal must come before the answer begins.
            await self._start(self._send, 200, PROTOBUF_STREAM, None)
            self.has_begun = True
            message = await coming
            while message is not None:
                await self._send_frame(message)
                coming = asyncio.ensure_future(anext(messages, None))
                while not (await asyncio.wait({coming}, timeout=self._sign_of_life))[0]:
                    await self._send_frame(b"")
                message = coming.result()
        finally:
            coming.cancel()
            await asyncio.wait({coming})
        await self._send({"type": "http.response.body", "body": b""})

    async def _send_frame(self, message: bytes) -> None:
        await send_piece(self._send, _FRAME.pack(len(message)) + message[:_FIRST_PIECE])
        for at in range(_FIRST_PIECE, len(message), PIECE):
            await send_piece(self._send, message[at : at + PIECE])


def _nothing() -> None:
    """Release the room of an answer that needs none."""


def _connection(scope: Scope) -> Connection:
    connection: Connection = scope[CONNECTION]
    return connection


def _not_a_call(scope: Scope) -> errors.Answer | None:
    """Return the answer to a request on a method's path that is no call."""
    if scope["method"] != "POST":
        return errors.plain(405, "Method Not Allowed", (b"allow", b"POST"))
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    if [kind.partition(b";")[0].strip().lower() for kind in kinds] != [PROTOBUF]:
        text = f"A call has one content-type, {PROTOBUF.decode()}."
        return errors.refusal(ApiError(ErrorCode.UNSUPPORTED_CONTENT_TYPE, text, text))
    return None


def _call(route: _Route, scope: Scope) -> Call:
    method, peer, headers = route.method, _peer(scope), metadata(scope["headers"])
    client = route.service.balancers.client_of(peer, headers)
    return Call(method, headers, peer, HTTP, method.signed_path, client)


def _peer(scope: Scope) -> str:
    host, port = scope["client"] or ("", 0)
    return f"{host}:{port}"


def _announced(scope: Scope) -> int | None:
    """Return the announced length of a request's body, None without one."""
    lengths = [value for name, value in scope["headers"] if name == b"content-length"]
    return int(lengths[0]) if lengths and lengths[0].isdigit() else None


async def _answer(route: _Route, call: Call, scope: Scope, receive: Receive) -> Answer:
    service, connection = route.service, _connection(scope)
    identify = await service.authenticate(call)
    if route.method.bulk is Bulk.REQUEST:
        with service.pushes.in_hand(call.pusher):
            async with route.body_limit.place() as place, _arriving(route, call, scope) as body:
                call.receive(await place.transfer(read(receive, body, connection)))
                if call.size <= SMALL:
                    place.leave()
                return await _within_time(route, call, await identify(call))
    async with _arriving(route, call, scope) as body:
        call.receive(await read(receive, body, connection))
        caller = await identify(call)
        if route.method.held:
            return await _unless_gone(connection, _within_time(route, call, caller))
        return await _within_time(route, call, caller)


@asynccontextmanager
async def _arriving(route: _Route, call: Call, scope: Scope) -> AsyncIterator[Body]:
    """Hold the arriving body of a call, to the end of the context."""
    body = await route.service.bodies.begin(route.method, call.host, _announced(scope))
    try:
        yield body
    finally:
        body.close()


async def _within_time(route: _Route, call: Call, caller: Caller) -> Answer:
    """Serve a call before its client gives up and takes that for a broken network."""
    try:
        async with asyncio.timeout(call.wire.answer_within):
            return await route.service.endpoint(route.method)(call, caller)
    except TimeoutError as exc:
        raise Unavailable(f"no answer within {call.wire.answer_within} s") from exc


async def _unless_gone(connection: Connection, work: Coroutine[Any, Any, _T]) -> _T:
    """Return the result of `work`; end it and raise `ClientGone` if the client leaves before."""
    task = asyncio.current_task()
    assert task is not None
    connection.ends_with_client(task)
    try:
        return await work
    except asyncio.CancelledError:
        if not connection.is_gone:
            raise
        task.uncancel()
        raise ClientGone from None
    finally:
        connection.ends_with_client(None)
