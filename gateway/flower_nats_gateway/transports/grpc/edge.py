"""The gRPC edge: decodes, calls, encodes, and says errors in gRPC's words. No rule lives here."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Self

import grpc
import grpc.aio

from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError, Outcome, Unavailable
from flower_nats.wire.messages import malformed
from flower_nats.wire.methods import Method
from flower_nats_gateway.api.control import Stream
from flower_nats_gateway.auth.authentication import Authenticator
from flower_nats_gateway.calls.body_limit import SMALL, BodyLimit
from flower_nats_gateway.calls.call import Call, Endpoint
from flower_nats_gateway.transports.grpc.hang_up import CallsInHand

log = get_logger(__name__)

_FIRST_OWN_CODE = 10_000
_EXPECTED = frozenset({Outcome.UNAVAILABLE, Outcome.DEADLINE_EXCEEDED})


@dataclass(frozen=True)
class Service:
    """One API: its methods, who may call them, and who serves them."""

    methods: Sequence[Method]
    authenticate: Authenticator
    endpoints: Mapping[str, Endpoint]
    """By method name; a method in neither table is forwarded."""
    forward: Endpoint
    streams: Mapping[str, Stream]
    in_hand: CallsInHand
    longest_body: int
    """Bytes of a request that its server takes."""


class ServiceHandler(grpc.GenericRpcHandler):
    """Routes the calls of one API by their path."""

    def __init__(self, service: Service) -> None:
        arriving, leaving = BodyLimit(), BodyLimit()
        self._handlers = {
            method.path: _handler(method, service, arriving, leaving) for method in service.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler of a call; gRPC answers UNIMPLEMENTED where there is none."""
        return self._handlers.get(handler_call_details.method)


def _handler(method: Method, service: Service, arriving: BodyLimit, leaving: BodyLimit) -> Any:
    if method.streams:
        return _stream_handler(method, service)
    if method.name == "PushObject":
        return _bulky_request_handler(method, service, arriving)
    if method.name == "PullObject":
        return _bulky_response_handler(method, service, leaving)
    return _unary_handler(method, service)


def _unary_handler(method: Method, service: Service) -> Any:
    endpoint = service.endpoints.get(method.name, service.forward)

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(method, service, context) as serving:
            identify = await service.authenticate(serving.call)
            serving.receive(await context.read())
            return await endpoint(serving.call, await identify(serving.call))

    return _reads_when_it_wants(handle)


def _reads_when_it_wants(handle: Any) -> Any:
    """Have a unary call served by what reads the request itself, once it knows whose it is.

    On the wire a stream of one message is the same.
    """
    return grpc.stream_unary_rpc_method_handler(handle)


def _bulky_request_handler(method: Method, service: Service, turnstile: BodyLimit) -> Any:
    endpoint = service.endpoints[method.name]

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(method, service, context) as serving:
            identify = await service.authenticate(serving.call)
            async with turnstile.place() as place:
                serving.receive(await place.transfer(context.read()))
                if serving.call.size <= SMALL:
                    place.leave()
                return await endpoint(serving.call, await identify(serving.call))

    return _reads_when_it_wants(handle)


def _bulky_response_handler(method: Method, service: Service, turnstile: BodyLimit) -> Any:
    endpoint = service.endpoints[method.name]

    async def handle(_requests: Any, context: Any) -> bytes:
        async with _Serving(method, service, context) as serving:
            identify = await service.authenticate(serving.call)
            serving.receive(await context.read())
            response = await endpoint(serving.call, await identify(serving.call))
            if len(response) > SMALL:
                place = await turnstile.enter()
                place.leave_later()
                context.add_done_callback(lambda _: place.leave())
            # Returned, not written: so it leaves in one piece with its head and its status, and a
            # gateway that dies has answered or has not. No balancer can mend half an answer.
            return response

    return _reads_when_it_wants(handle)


def _stream_handler(method: Method, service: Service) -> Any:
    stream = service.streams[method.name]

    async def handle(body: bytes, context: Any) -> AsyncIterator[bytes]:
        async with _Serving(method, service, context) as serving:
            serving.receive(body)
            identify = await service.authenticate(serving.call)
            async for response in stream(serving.call, await identify(serving.call)):
                yield response

    return grpc.unary_stream_rpc_method_handler(handle)


class _Serving:
    """A call in hand; what its context raises is answered in gRPC's words."""

    def __init__(self, method: Method, service: Service, context: Any) -> None:
        self._method = method
        self._context = context
        self._peer: str = context.peer()
        self._in_hand = service.in_hand
        self._longest_body = service.longest_body
        metadata = {key: value for key, value in context.invocation_metadata() or ()}
        self.call = Call(method, metadata, self._peer)

    def receive(self, body: Any) -> None:
        """Note what was read of the call's body: bytes, or that there is nothing to read.

        So it is with a body that gRPC has refused for its length, by itself, with RESOURCE_EXHAUSTED
        and its own text. This raises `ApiError`, of which only our log hears.
        """
        if body is grpc.aio.EOF:
            raise malformed(f"no body came, or one of more than {self._longest_body} bytes")
        self.call.receive(body)

    async def __aenter__(self) -> Self:
        # Among those in hand, which a gateway that drains lets finish, from its first byte.
        self._in_hand.begin(self._peer)
        return self

    async def __aexit__(self, _kind: object, exc: BaseException | None, _trace: object) -> None:
        try:
            if isinstance(exc, Exception):
                await self._abort(exc)
        finally:
            self._in_hand.end(self._peer)

    async def _abort(self, exc: Exception) -> NoReturn:
        method = self._method
        error = exc if isinstance(exc, ApiError) else _unexpected(method, exc)
        if error.spec.outcome not in _EXPECTED:
            log.warning(
                "call_refused",
                rpc=f"{method.api}.{method.name}",
                code=error.code.name,
                reason=error.detail,
                peer=self._peer,
            )
        status = grpc.StatusCode[error.spec.outcome.name]
        await self._context.abort(status, _details(method, error))
        raise AssertionError("abort does not return")


def _unexpected(method: Method, exc: Exception) -> ApiError:
    """A fault of ours: it must not end a stock client, and a retry may well meet a healthy replica."""
    log.error("call_failed", rpc=f"{method.api}.{method.name}", exc_info=exc)
    return Unavailable(repr(exc))


def _details(method: Method, error: ApiError) -> str:
    """Return the details as the API's clients read them (wire-facts, 1).

    Fleet and Control clients read JSON with Flower's own codes; ServerAppIo clients of flwr 1.33, and
    every client for refusals that have no code of Flower's, read plain text.
    """
    text = error.spec.message
    if error.code < _FIRST_OWN_CODE and method.api != "Runtime":
        return json.dumps(
            {
                "code": int(error.code),
                "public_message": text,
                "public_details": error.public_details,
            }
        )
    return f"{text} {error.public_details}" if error.public_details else text
