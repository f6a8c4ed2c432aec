"""SuperExecs: whether a call was signed with the secret that they share with gateways."""

import hashlib
import hmac

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats_gateway.auth.identify import Identify
from flower_nats_gateway.auth.timestamps import OLDEST, check_age
from flower_nats_gateway.calls.call import Call

# flwr 1.33 `supercore/interceptors`.
_TIMESTAMP = "flwr-superexec-ts"
_NONCE = "flwr-superexec-nonce"
_BODY = "flwr-superexec-body-sha256"
_SIGNATURE = "flwr-superexec-signature"

_LONGEST_NONCE = 256


class SuperexecProof:
    """Checks that a caller knows the secret, and makes no call of another one again."""

    def __init__(self, rpc: RpcClient, secret: bytes) -> None:
        self._rpc = rpc
        # flwr 1.33 `supercore/auth/superexec.py`: the key is derived from the secret.
        self._key = hmac.digest(secret, b"superexec-auth-v1", "sha256")

    def check(self, call: Call) -> Identify:
        """Check the signature. Raises `ApiError` (AUTHENTICATION_FAILED)."""
        timestamp, nonce = call.text(_TIMESTAMP), call.text(_NONCE)
        if not (timestamp.isdecimal() and len(timestamp) < 20 and 0 < len(nonce) <= _LONGEST_NONCE):
            raise failed("SuperExec timestamp or nonce missing")
        try:
            check_age(float(timestamp))
        except ApiError as exc:
            raise failed(exc.detail) from exc
        body = call.text(_BODY)
        text = f"method={call.signed_path}\nts={timestamp}\nnonce={nonce}\nbody_sha256={body}"
        expected = hmac.new(self._key, text.encode(), "sha256").hexdigest()
        if not hmac.compare_digest(expected.encode(), call.text(_SIGNATURE).encode()):
            raise failed("the SuperExec does not know the secret")
        return self._identify

    async def _identify(self, call: Call) -> Caller:
        if hashlib.sha256(call.body).hexdigest() != call.text(_BODY):
            raise failed("this is not the body that the SuperExec has signed")
        answer = await self._rpc.ask(
            "ReserveNonce",
            namespace=f"superexec:{call.signed_path}",
            nonce=call.text(_NONCE),
            expires_at=float(call.text(_TIMESTAMP)) + OLDEST,
            # Tells a second try, ours or our balancer's, from a replay.
            holder=call.request_id,
        )
        if not answer["reserved"]:
            raise failed("this SuperExec call was made before")
        return Caller()


def failed(reason: str) -> ApiError:
    """Return the refusal of a caller of the Runtime API that does not prove who it is."""
    return ApiError(ErrorCode.AUTHENTICATION_FAILED, reason)
