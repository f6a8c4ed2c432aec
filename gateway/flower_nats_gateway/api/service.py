"""The service of one API, which is the same for every wire."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from flower_nats.broker.pushers import Pushes
from flower_nats.model.caller import Caller
from flower_nats.wire.methods import Method
from flower_nats_gateway.api.page import ServePage
from flower_nats_gateway.auth.identify import Authenticator
from flower_nats_gateway.calls.admission import Admission
from flower_nats_gateway.calls.answers import Answer
from flower_nats_gateway.calls.balancers import Balancers
from flower_nats_gateway.calls.bodies import Bodies
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.calls.in_hand import CallsInHand
from flower_nats_gateway.calls.outcomes import Outcomes

Endpoint = Callable[[Call, Caller], Awaitable[Answer]]
"""Serves one unary RPC of an authenticated caller; returns the serialized response."""

Stream = Callable[[Call, Caller], AsyncGenerator[bytes, None]]
"""Serves one streaming RPC; yields the serialized responses."""


@dataclass(frozen=True)
class Service:
    """One API: its methods, their callers, and their handlers."""

    methods: Sequence[Method]
    authenticate: Authenticator
    endpoints: Mapping[str, Endpoint]
    """By method name; a method in neither table is forwarded."""
    forward: Endpoint
    streams: Mapping[str, Stream]
    pages: Mapping[str, ServePage]
    """Pages for browsers, by their path over HTTP. They are served wherever the API is."""
    in_hand: CallsInHand
    admission: Admission
    outcomes: Outcomes
    bodies: Bodies
    pushes: Pushes
    balancers: Balancers

    @property
    def longest_body(self) -> int:
        """Bytes of the longest request that any of its methods takes."""
        return max(method.longest_request for method in self.methods)

    def endpoint(self, method: Method) -> Endpoint:
        """Return the handler of a unary method."""
        return self.endpoints.get(method.name, self.forward)
