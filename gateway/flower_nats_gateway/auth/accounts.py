"""Callers of the Control API: by the token that came with the call.

The gateway sends only the hash of a token. Superlinks know its account, and whether a token is
needed.
"""

from dataclasses import replace

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.account import account_token_hash
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import control_pb2 as control
from flower_nats_gateway.auth.identify import Authenticator, Identify, certainly
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.calls.wire import GRPC
from flower_nats_gateway.cluster.clis_heard import ClisHeard

# The metadata keys of tokens over gRPC (flwr 1.33 `common/constant.py`).
ACCESS_TOKEN = "flwr-oidc-access-token"
REFRESH_TOKEN = "flwr-oidc-refresh-token"

_AUTHORIZATION = "authorization"
"""The header of the token over HTTP (flwr 1.42 `cli/cli_account_auth_interceptor.py`)."""

_SCHEME = "bearer"

REFUSED = ErrorCode.ACCOUNT_AUTHENTICATION_FAILED


def authenticate_account(clis: ClisHeard, *, required: bool = False) -> Authenticator:
    """Note the token of a call; a superlink checks it.

    `clis` records each call. `required`: superlinks without accounts must refuse the call.
    """

    async def authenticate(call: Call) -> Identify:
        clis.note(call)
        token = token_of(call)
        token_hash = account_token_hash(token) if token else b""
        return certainly(Caller(account_token=token_hash, accounts_required=required))

    return authenticate


def token_of(call: Call) -> str:
    """Return the token that came with a call, empty if none came."""
    scheme, _, token = call.text(_AUTHORIZATION).partition(" ")
    if scheme.lower() == _SCHEME:
        return token.strip()
    return call.text(ACCESS_TOKEN)


class Renewal:
    """Gets new tokens for callers whose token has expired.

    Clients over HTTP renew tokens themselves. Clients over gRPC send both tokens with each call,
    and take new ones from the initial metadata (flwr 1.33 `cli/cli_account_auth_interceptor.py`).
    """

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc

    async def renew(self, call: Call, caller: Caller) -> Caller | None:
        """Return the caller with a new token; None if the token cannot be renewed."""
        refresh_token = call.text(REFRESH_TOKEN)
        if call.wire is not GRPC or not refresh_token:
            return None
        request = control.RefreshAuthTokensRequest(refresh_token=refresh_token)
        try:
            body = await self._rpc.call(
                "Control",
                "RefreshAuthTokens",
                request.SerializeToString(),
                Caller(address=call.client_address),
            )
        except ApiError as exc:
            if exc.code is REFUSED:
                return None
            raise
        tokens = control.RefreshAuthTokensResponse.FromString(body)
        call.answer_metadata = (
            (ACCESS_TOKEN, tokens.access_token),
            (REFRESH_TOKEN, tokens.refresh_token),
        )
        return replace(caller, account_token=account_token_hash(tokens.access_token))
