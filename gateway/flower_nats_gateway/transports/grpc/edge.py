"""The gRPC edge: decodes, calls, encodes, and translates errors for gRPC. It has no rules."""

import asyncio
from contextlib import aclosing
from typing import Any, NoReturn, Self

import grpc
import grpc.aio

from flower_nats.model.errors import ApiError
from flower_nats.wire.messages import malformed
from flower_nats.wire.methods import Bulk, Method
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.calls.answers import Answer, LargeAnswer
from flower_nats_gateway.calls.bodies import Body
from flower_nats_gateway.calls.body_limit import SMALL, BodyLimit
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.calls.in_hand import CallsInHand
from flower_nats_gateway.calls.peers import Origins
from flower_nats_gateway.calls.wire import GRPC
from flower_nats_gateway.transports.grpc import errors
from flower_nats_gateway.transports.grpc.meter import Meter, Watch


class ServiceHandler(grpc.GenericRpcHandler):
    """Routes the calls of one API by their path."""

    def __init__(self, service: Service, meter: Meter, origins: Origins) -> None:
        arriving, leaving = BodyLimit(), BodyLimit()
        self._handlers = {
            path: _handler(_Route(method, path, service, meter, origins), arriving, leaving)
            for method in service.methods
            for path in method.grpc_paths
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; gRPC answers UNIMPLEMENTED without one."""
        return self._handlers.get(handler_call_details.method)


class _Route:
    """A method under one of its paths."""

    def __init__(
        self, method: Method, path: str, service: Service, meter: Meter, origins: Origins
    ) -> None:
        self.method = method
        self.path = path
        self.service = service
        self.meter = meter
        self.origins = origins


def _handler(route: _Route, arriving: BodyLimit, leaving: BodyLimit) -> Any:
    if route.method.streams:
        return _stream_handler(route)
    if route.method.bulk is Bulk.REQUEST:
        return _bulky_request_handler(route, arriving)
    if route.method.bulk is Bulk.RESPONSE:
        return _bulky_response_handler(route, leaving)
    return _unary_handler(route)


def _unary_handler(route: _Route) -> Any:
    endpoint, service = route.service.endpoint(route.method), route.service

    async def handle(_requests: Any, context: Any) -> Answer:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            await serving.receive()
            response = await endpoint(serving.call, await identify(serving.call))
            return await serving.whole(response)

    return _reads_when_it_wants(handle)


def _reads_when_it_wants(handle: Any) -> Any:
    """Wrap a unary handler, so that it reads the request itself after authentication.

    On the wire, a stream of one message is the same.
    """
    return grpc.stream_unary_rpc_method_handler(handle)


def _bulky_request_handler(route: _Route, body_limit: BodyLimit) -> Any:
    endpoint, service = route.service.endpoint(route.method), route.service

    async def handle(_requests: Any, context: Any) -> Answer:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            with service.pushes.in_hand(serving.call.pusher):
                async with body_limit.place() as place:
                    await place.transfer(serving.receive())
                    if serving.call.size <= SMALL:
                        place.leave()
                    return await endpoint(serving.call, await identify(serving.call))

    return _reads_when_it_wants(handle)


def _bulky_response_handler(route: _Route, body_limit: BodyLimit) -> Any:
    endpoint, service = route.service.endpoint(route.method), route.service

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            await serving.receive()
            response = await endpoint(serving.call, await identify(serving.call))
            is_large = isinstance(response, LargeAnswer)
            response = await serving.whole(response)
            if len(response) > SMALL and not is_large:
                place = await body_limit.enter()
                place.leave_later()
                context.add_done_callback(lambda _: place.leave())
            # Returned, not written, so that the answer leaves in one piece with its head and
            # status. A gateway that dies has then either answered or not. No balancer can repair
            # half an answer.
            return response

    return _reads_when_it_wants(handle)


def _stream_handler(route: _Route) -> Any:
    service = route.service
    stream = service.streams[route.method.name]

    async def handle(_requests: Any, context: Any) -> None:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            await serving.receive()
            caller = await identify(serving.call)
            async with aclosing(stream(serving.call, caller)) as responses:
                async for response in responses:
                    await serving.give(response)

    return grpc.stream_stream_rpc_method_handler(handle)


class _End:
    """What the end of a call does.

    The context of a call refers to this object. A reference back to the call or the context would
    make a cycle, and the call's body would stay in memory until the garbage collector runs.
    """

    def __init__(self, in_hand: CallsInHand, connection: str, host: str) -> None:
        self._in_hand, self._connection, self._host = in_hand, connection, host
        self.watch: Watch | None = None

    def __call__(self, _context: Any) -> None:
        if self.watch is not None:
            self.watch.cancel()
        self._in_hand.end(self._connection, self._host)


class _Serving:
    """A call that is being served; errors in its `with` block are answered as gRPC errors."""

    def __init__(self, route: _Route, context: Any) -> None:
        self._route = route
        self._context = context
        self._connection: str = context.peer()
        peer = route.origins.of(self._connection)
        self._body: Body | None = None
        metadata = {key: value for key, value in context.invocation_metadata() or ()}
        client = route.service.balancers.client_of(peer, metadata)
        self.call = Call(route.method, metadata, peer, GRPC, route.path, client)
        self._host = self.call.host
        self._end = _End(route.service.in_hand, self._connection, self._host)

    async def receive(self) -> None:
        """Read the call's body, as far as there is room for it.

        If gRPC itself has refused a body for its length, with RESOURCE_EXHAUSTED and its own text,
        no body comes. Then this raises `ApiError`, which only our log shows.
        """
        method, meter = self._route.method, self._route.meter
        body = self._body = await self._route.service.bodies.begin(method, self._host)
        meter.begin(body, self._connection)
        message: Any = b""
        try:
            message = await body.receive(self._context.read())
        finally:
            size = body.size if message is grpc.aio.EOF else len(message)
            meter.end(body, self._connection, size)
        if message is grpc.aio.EOF:
            longest = self._route.service.longest_body
            raise malformed(f"no body came, or one of more than {longest} bytes")
        self.call.receive(message)

    async def give(self, response: bytes) -> None:
        """Send a message of a stream, and wait until its client has taken it.

        If a client does not take a message, the call can be ended only with its connection.
        """
        await self._tell_first()
        watch = self._route.meter.watch_taking(self._connection)
        try:
            await self._context.write(response)
        except Exception as exc:
            # The client has gone, so no answer can reach it.
            raise asyncio.CancelledError from exc
        finally:
            watch.cancel()

    async def whole(self, response: Answer) -> bytes:
        """Return a whole answer for gRPC, once there is room for it.

        The client may be slow to take the answer, and gRPC has a copy of it.
        """
        if len(response) > SMALL:
            leave = await self._route.service.bodies.leave(GRPC, self._host, len(response))
            self._context.add_done_callback(lambda _: leave())
        if isinstance(response, LargeAnswer):
            response = await response.whole()
        self._end.watch = self._route.meter.watch_taking(self._connection)
        return response

    async def __aenter__(self) -> Self:
        # From its first byte, the answer counts as in hand, so that a draining gateway lets it
        # finish.
        service = self._route.service
        service.in_hand.begin(self._connection, self._host)
        # Held until the client has all of the answer.
        self._context.add_done_callback(self._end)
        try:
            service.admission.check(self._route.method, self._host)
        except ApiError as exc:
            await self._abort(exc)
        return self

    async def __aexit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        if self._body is not None:
            self._body.close()
        if not isinstance(exc, asyncio.CancelledError):
            await self._tell_first()
        if exc is None:
            self._route.service.outcomes.served(self.call)
        elif isinstance(exc, Exception):
            await self._abort(exc)

    async def _tell_first(self) -> None:
        """Send the metadata for the client before the answer, even before a refusal."""
        if self.call.answer_metadata:
            metadata, self.call.answer_metadata = self.call.answer_metadata, ()
            await self._context.send_initial_metadata(metadata)

    async def _abort(self, exc: Exception) -> NoReturn:
        error = self._route.service.outcomes.refusal(self.call, exc)
        await self._context.abort(errors.status(error), errors.details(self._route.path, error))
        raise AssertionError("abort does not return")
