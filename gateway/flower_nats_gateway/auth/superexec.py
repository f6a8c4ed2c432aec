"""SuperExecs: whether a call was signed with the secret that they share with gateways."""

import hashlib
import hmac
from pathlib import Path

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.superexec_secret import read_superexec_secrets
from flower_nats.renewable import Renewable
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

    def __init__(self, rpc: RpcClient, secret_file: Path) -> None:
        self._rpc = rpc
        self._keys = Renewable([secret_file], lambda: _keys(secret_file))

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
        signature = call.text(_SIGNATURE).encode()
        if not any([_is_signed(text, signature, key) for key in self._keys.value]):
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


def _keys(secret_file: Path) -> list[bytes]:
    # flwr 1.33 `supercore/auth/superexec.py`: the key is derived from the secret.
    secrets = read_superexec_secrets(secret_file)
    return [hmac.digest(secret, b"superexec-auth-v1", "sha256") for secret in secrets]


def _is_signed(text: str, signature: bytes, key: bytes) -> bool:
    expected = hmac.new(key, text.encode(), "sha256").hexdigest()
    return hmac.compare_digest(expected.encode(), signature)


def failed(reason: str) -> ApiError:
    """Return the refusal of a caller of the Runtime API that does not prove who it is."""
    return ApiError(ErrorCode.AUTHENTICATION_FAILED, reason)
