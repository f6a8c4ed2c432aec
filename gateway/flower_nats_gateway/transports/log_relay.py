"""StreamLogs beside a balancer: a stream that outlives the gateways that feed it.

A balancer cannot repair a stream that has begun. So behind a balancer, a gateway ends its gRPC
stream after each answer (`runlog/follow.py`), and the caller calls again from there. The relay
stands beside the balancer, keeps its clients' streams open, and calls again itself, at once. It
serves clients over gRPC and over HTTP; it asks gateways over gRPC.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health

from flower_nats.broker.pushers import Pushes
from flower_nats.broker.runlog import BATCH_BYTES
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from flower_nats.wire.request_id import CLIENT_ADDRESS
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.auth.accounts import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    authenticate_account,
    token_of,
)
from flower_nats_gateway.auth.follower import SESSION
from flower_nats_gateway.calls.admission import Admission
from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.calls.bodies import Bodies
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.calls.in_hand import CallsInHand
from flower_nats_gateway.calls.outcomes import Outcomes
from flower_nats_gateway.cluster.clis_heard import ClisHeard
from flower_nats_gateway.runlog.room import PIECE, WANTED_BYTES, LogRoom
from flower_nats_gateway.transports.grpc.listener import Listener, listen
from flower_nats_gateway.transports.http.app import HttpApp
from flower_nats_gateway.transports.http.listener import HttpListener, Served

_STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]

BALANCER = "127.0.0.1"
"""The address of the balancer, which is the only client of the relay."""

_PAUSE = 0.1
"""Seconds before the relay calls again after a stream without data, for example of a draining
gateway."""

_AHEAD = 2 * 1024 * 1024
"""Bytes after which a stream over gRPC ends, so that its client goes on with another one: the
balancer takes all that we send, even if its client does not. Clients over HTTP do not call
again."""

_OPTIONS = [
    # To our own balancer, on this machine.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # The default is a second at first, and up to two minutes: right for another machine, not for
    # our balancer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]


class LogRelay:
    """Serves StreamLogs from gateways behind a balancer at `gateways`.

    It listens at `address` for gRPC and, unless that is empty, at `http_address` for HTTP. All are
    `host:port`, without TLS, only for the balancer on this machine.
    """

    def __init__(self, address: str, http_address: str = "", *, gateways: str) -> None:
        self._address = address
        self._http_address = http_address
        self._gateways = gateways
        self._listener: Listener | None = None
        self._http: HttpListener | None = None
        self._channel: grpc.aio.Channel | None = None
        self._room = LogRoom()

    async def start(self) -> None:
        """Listen. Raises `CannotListen`."""
        self._channel = grpc.aio.insecure_channel(self._gateways, options=_OPTIONS)
        self._stream: Any = self._channel.unary_stream(_STREAM_LOGS.path)
        in_hand = CallsInHand()
        service = Service(
            methods=[_STREAM_LOGS],
            authenticate=authenticate_account(ClisHeard()),
            endpoints={},
            forward=_nothing_else,
            streams={_STREAM_LOGS.name: self.follow},
            pages={},
            in_hand=in_hand,
            # Its calls are streams, which last as long as a run.
            admission=Admission(in_hand, lambda: in_hand.count),
            outcomes=Outcomes(),
            bodies=Bodies(),
            pushes=Pushes(),
            balancers=Balancers([BALANCER]),
        )
        always = health.aio.HealthServicer()
        self._listener = await listen(self._address, [service], always)
        if self._http_address:
            app = HttpApp([service], is_ready=lambda: True, is_leaving=lambda: False)
            self._http = HttpListener(Served(app, None), None)
            self._http.start(self._http_address)

    async def stop(self) -> None:
        """End all streams."""
        if self._http is not None:
            await self._http.stop(0.0)
        if self._listener is not None:
            await self._listener.server.stop(None)
        if self._channel is not None:
            await self._channel.close()

    async def follow(self, call: Call, _caller: Caller) -> AsyncGenerator[bytes, None]:
        """Yield a run's log until a gateway says that it is complete, or refuses."""
        with self._room.follower():
            async with aclosing(self._follow(call)) as answers:
                async for answer in answers:
                    yield answer

    async def _follow(self, call: Call) -> AsyncGenerator[bytes, None]:
        request, begun, wanted, sent = call.body, False, BATCH_BYTES, 0
        proof, session = _proof(call), ""

        def note(told: Mapping[str, str]) -> None:
            nonlocal session
            session = told.get(SESSION, session)
            # New tokens, which the client must store.
            names = [name for name in (ACCESS_TOKEN, REFRESH_TOKEN) if name in told]
            call.answer_metadata += tuple((name, told[name]) for name in names)

        while True:
            answer = b""
            try:
                with self._room.take(wanted) as size:
                    metadata = [*proof, (WANTED_BYTES, str(size))]
                    metadata += [(SESSION, session)] if session else []
                    # This waits for a balancer that has just been restarted.
                    stream = self._stream(request, metadata=metadata, wait_for_ready=True)
                    async with aclosing(_answers(stream, note)) as answers:
                        async for answer in answers:
                            begun, wanted = True, PIECE
                            yield answer
                            sent += len(answer)
                return
            except grpc.aio.AioRpcError as exc:
                # A stream that breaks after an answer means that a gateway has died.
                ends = exc.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                outlasted = begun and exc.code() is grpc.StatusCode.UNAVAILABLE
                if not (answer or ends or outlasted):
                    raise _refusal(exc) from exc
            if sent >= _AHEAD and call.wire.follows_on:
                raise ApiError(ErrorCode.STREAM_ENDS, f"{sent} bytes are under way")
            if answer:
                request = _going_on(request, answer)
            else:
                await asyncio.sleep(_PAUSE)


def _proof(call: Call) -> list[tuple[str, str]]:
    """Return the metadata that proves the caller to a gateway over gRPC, with its address.

    Over HTTP, the token came in another header.
    """
    proof = {
        CLIENT_ADDRESS: call.client_address,
        ACCESS_TOKEN: token_of(call),
        REFRESH_TOKEN: call.text(REFRESH_TOKEN),
    }
    return [(name, value) for name, value in proof.items() if value]


async def _answers(
    stream: Any, note: Callable[[Mapping[str, str]], None]
) -> AsyncGenerator[bytes, None]:
    """Forward a stream and its initial metadata; cancel it when the caller stops."""
    try:
        note(dict(await stream.initial_metadata() or ()))
        async for answer in stream:
            yield answer
    finally:
        stream.cancel()


def _refusal(exc: grpc.aio.AioRpcError) -> ApiError:
    """Return the refusal of a gateway, to forward it."""
    try:
        said = json.loads(exc.details() or "")
        code = ErrorCode(said["code"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(f"{exc.code()} {exc.details()}")
    return ApiError(code, "refused by a gateway", said.get("public_details"))


def _going_on(request: bytes, answer: bytes) -> bytes:
    """Return the request for what follows an answer."""
    following = control.StreamLogsRequest.FromString(request)
    following.after_timestamp = control.StreamLogsResponse.FromString(answer).latest_timestamp
    return following.SerializeToString()


async def _nothing_else(call: Call, _caller: Caller) -> bytes:
    raise Unavailable(f"{call.method.name} is not for the log relay")
