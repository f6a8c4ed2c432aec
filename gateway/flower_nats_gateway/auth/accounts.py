"""Callers of the Control API."""

from flower_nats.model.caller import Caller
from flower_nats_gateway.auth.identify import Authenticator, Identify, certainly
from flower_nats_gateway.calls.call import Call


def authenticate_nobody() -> Authenticator:
    """Control without accounts: everybody is the one account there is."""

    async def authenticate(_call: Call) -> Identify:
        return certainly(Caller())

    return authenticate
