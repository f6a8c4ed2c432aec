"""The gRPC edge: decodes, calls, encodes, and says errors in gRPC's words. No rule lives here."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn, Self

import grpc
import grpc.aio

from flower_nats.model.errors import ApiError
from flower_nats.wire.messages import malformed
from flower_nats.wire.methods import Bulk, Method
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.calls.body_limit import SMALL, BodyLimit
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.calls.wire import GRPC
from flower_nats_gateway.transports.grpc import errors


class ServiceHandler(grpc.GenericRpcHandler):
    """Routes the calls of one API by their path."""

    def __init__(self, service: Service) -> None:
        arriving, leaving = BodyLimit(), BodyLimit()
        self._handlers = {
            path: _handler(_Route(method, path, service), arriving, leaving)
            for method in service.methods
            for path in method.grpc_paths
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; gRPC answers UNIMPLEMENTED where there is none."""
        return self._handlers.get(handler_call_details.method)


class _Route:
    """A method under one of its paths."""

    def __init__(self, method: Method, path: str, service: Service) -> None:
        self.method = method
        self.path = path
        self.service = service


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

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            serving.receive(await context.read())
            return await endpoint(serving.call, await identify(serving.call))

    return _reads_when_it_wants(handle)


def _reads_when_it_wants(handle: Any) -> Any:
    """Have a unary call served by what reads the request itself, once it knows whose it is.

    On the wire a stream of one message is the same.
    """
    return grpc.stream_unary_rpc_method_handler(handle)


def _bulky_request_handler(route: _Route, body_limit: BodyLimit) -> Any:
    endpoint, service = route.service.endpoint(route.method), route.service

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            async with body_limit.place() as place:
                serving.receive(await place.transfer(context.read()))
                if serving.call.size <= SMALL:
                    place.leave()
                return await endpoint(serving.call, await identify(serving.call))

    return _reads_when_it_wants(handle)


def _bulky_response_handler(route: _Route, body_limit: BodyLimit) -> Any:
    endpoint, service = route.service.endpoint(route.method), route.service

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(route, context) as serving:
            identify = await service.authenticate(serving.call)
            serving.receive(await context.read())
            response = await endpoint(serving.call, await identify(serving.call))
            if len(response) > SMALL:
                place = await body_limit.enter()
                place.leave_later()
                context.add_done_callback(lambda _: place.leave())
            # Returned, not written: so it leaves in one piece with its head and its status, and a
            # gateway that dies has answered or has not. No balancer can mend half an answer.
            return response

    return _reads_when_it_wants(handle)


def _stream_handler(route: _Route) -> Any:
    service = route.service
    stream = service.streams[route.method.name]

    async def handle(body: bytes, context: Any) -> AsyncIterator[bytes]:
        async with _Serving(route, context) as serving:
            serving.receive(body)
            identify = await service.authenticate(serving.call)
            async for response in stream(serving.call, await identify(serving.call)):
                yield response

    return grpc.unary_stream_rpc_method_handler(handle)


class _Serving:
    """A call in hand; what its context raises is answered in gRPC's words."""

    def __init__(self, route: _Route, context: Any) -> None:
        self._route = route
        self._context = context
        self._peer: str = context.peer()
        metadata = {key: value for key, value in context.invocation_metadata() or ()}
        self.call = Call(route.method, metadata, self._peer, GRPC, route.path)

    def receive(self, body: Any) -> None:
        """Note what was read of the call's body: bytes, or that there is nothing to read.

        So it is with a body that gRPC has refused for its length, by itself, with RESOURCE_EXHAUSTED
        and its own text. This raises `ApiError`, of which only our log hears.
        """
        if body is grpc.aio.EOF:
            longest = self._route.service.longest_body
            raise malformed(f"no body came, or one of more than {longest} bytes")
        self.call.receive(body)

    async def __aenter__(self) -> Self:
        # Among those in hand, which a gateway that drains lets finish, from its first byte.
        service = self._route.service
        service.in_hand.begin(self._peer)
        try:
            service.admission.check(self._route.method, self._peer)
        except ApiError as exc:
            try:
                await self._abort(exc)
            finally:
                service.in_hand.end(self._peer)
        return self

    async def __aexit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        try:
            if exc is None:
                self._route.service.outcomes.served(self._route.method)
            elif isinstance(exc, Exception):
                await self._abort(exc)
        finally:
            self._route.service.in_hand.end(self._peer)

    async def _abort(self, exc: Exception) -> NoReturn:
        error = self._route.service.outcomes.refusal(self._route.method, exc, self._peer)
        await self._context.abort(errors.status(error), errors.details(self._route.path, error))
        raise AssertionError("abort does not return")
