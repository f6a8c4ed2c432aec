"""APIs that the HTTP port keeps from other machines."""

from flower_nats.model.doors import not_for_others
from flower_nats_gateway.auth.identify import Authenticator, Identify
from flower_nats_gateway.calls.call import Call


async def refuse_everybody(call: Call) -> Identify:
    """Refuse every call from another machine."""
    raise not_for_others(call.method.api)


def unless_passed_on(authenticate: Authenticator) -> Authenticator:
    """Refuse calls that a proxy on this machine has forwarded: its clients may be anywhere."""

    async def check(call: Call) -> Identify:
        if call.was_passed_on:
            raise not_for_others(call.method.api)
        return await authenticate(call)

    return check
