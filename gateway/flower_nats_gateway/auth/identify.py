"""The interface of authenticators, which identify callers.

An authenticator gets a call before its body is read, so that a call without proof is refused before
its body takes memory. It returns a function that identifies the caller from the whole call. Both
raise the `ApiError` to which stock clients react as with a stock SuperLink.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from flower_nats.model.caller import Caller
from flower_nats_gateway.calls.call import Call

Identify = Callable[[Call], Awaitable[Caller]]
"""Identifies the caller, once the body is there."""

Authenticator = Callable[[Call], Awaitable[Identify]]


def certainly(caller: Caller) -> Identify:
    """Return an identification that needs only the metadata of a call."""
    return partial(_the_same, caller)


async def _the_same(caller: Caller, _call: Call) -> Caller:
    return caller
