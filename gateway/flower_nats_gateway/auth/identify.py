"""Who is calling: what every authenticator is.

An authenticator takes a call whose body was not read yet: what its metadata does not prove is refused
before anybody has to hold a body for it. It gives what then tells, from the whole call, the caller. Both
raise the `ApiError` that makes stock clients do what they do against a stock SuperLink.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from flower_nats.model.caller import Caller
from flower_nats_gateway.calls.call import Call

Identify = Callable[[Call], Awaitable[Caller]]
"""Tells who makes a call, once its body is there."""

Authenticator = Callable[[Call], Awaitable[Identify]]


def certainly(caller: Caller) -> Identify:
    """Return what tells the caller of a call whose metadata says it all."""
    return partial(_the_same, caller)


async def _the_same(caller: Caller, _call: Call) -> Caller:
    return caller
