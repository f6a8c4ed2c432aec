"""Callers of the Control API: by the token that came with the call.

The gateway says of a token only its hash. Superlinks know whose it is, and whether it is needed.
"""

from flower_nats.model.account import account_token_hash
from flower_nats.model.caller import Caller
from flower_nats_gateway.auth.identify import Identify, certainly
from flower_nats_gateway.calls.call import Call

ACCESS_TOKEN = "flwr-oidc-access-token"
"""Where clients over gRPC have the token (flwr 1.33 `common/constant.py`)."""

AUTHORIZATION = "authorization"
"""Where clients over HTTP have it (flwr 1.42 `cli/cli_account_auth_interceptor.py`)."""

_SCHEME = "bearer"


async def authenticate_account(call: Call) -> Identify:
    """Take note of the token of a call; a superlink says whether it is good."""
    token = token_of(call)
    return certainly(Caller(account_token=account_token_hash(token) if token else b""))


def token_of(call: Call) -> str:
    """Return the token that came with a call, empty if none came."""
    scheme, _, token = call.text(AUTHORIZATION).partition(" ")
    if scheme.lower() == _SCHEME:
        return token.strip()
    return call.text(ACCESS_TOKEN)
