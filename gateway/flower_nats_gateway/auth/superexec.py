"""SuperExecs: verifies that a call is signed with the secret shared with gateways."""

import hashlib
import hmac
from functools import partial
from pathlib import Path

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.superexec_secret import NO_SECRET, read_superexec_secrets, secret_of_host
from flower_nats.renewable import Renewable
from flower_nats_gateway.auth.identify import Identify, certainly
from flower_nats_gateway.auth.timestamps import OLDEST, check_age
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.cluster.superexecs_heard import SuperexecsHeard

# flwr 1.33 `supercore/interceptors`.
_TIMESTAMP = "flwr-superexec-ts"
_NONCE = "flwr-superexec-nonce"
_BODY = "flwr-superexec-body-sha256"
_SIGNATURE = "flwr-superexec-signature"

_LONGEST_NONCE = 256


class SuperexecProof:
    """Checks that a caller knows the shared secret or a host's, and does not replay another's call.

    Without a secret every caller counts as a SuperExec, but hosts are still recognised.
    """

    def __init__(self, rpc: RpcClient, secret_file: Path | None, heard: SuperexecsHeard) -> None:
        self._rpc = rpc
        self._heard = heard
        self._secrets = None if secret_file is None else _renewable(secret_file)
        self._hosts: set[str] = set()
        """Every host that was ever known."""

    async def check(self, call: Call) -> Identify:
        """Check the signature. Raises `ApiError` (AUTHENTICATION_FAILED)."""
        try:
            return partial(self._noted, await self._check(call))
        except ApiError as exc:
            if exc.code is ErrorCode.AUTHENTICATION_FAILED:
                self._heard.note(call, refused=exc.detail)
            raise

    async def _noted(self, identify: Identify, call: Call) -> Caller:
        caller = await identify(call)
        self._heard.note(call, host=caller.superexec_host)
        return caller

    async def _check(self, call: Call) -> Identify:
        if self._secrets is None:
            signed = call.text(_SIGNATURE) != ""
            return certainly(Caller(superexec_host=await self._host(call) or "" if signed else ""))
        timestamp, nonce = call.text(_TIMESTAMP), call.text(_NONCE)
        if not (timestamp.isdecimal() and len(timestamp) < 20 and 0 < len(nonce) <= _LONGEST_NONCE):
            raise failed("SuperExec timestamp or nonce missing")
        try:
            check_age(float(timestamp))
        except ApiError as exc:
            raise failed(exc.detail) from exc
        host = "" if _is_signed(call, *self._secrets.value) else await self._host(call)
        if host is None:
            raise failed("the SuperExec does not know the secret")
        return partial(self._identify, host)

    async def _host(self, call: Call) -> str | None:
        """Return the host of the SuperExec that makes a call, None if it is unknown."""
        host = self._signer(call)
        if host is None:
            # The host may be new, so a superlink is asked before a refusal.
            answer = await self._rpc.ask("SuperexecHosts")
            self._hosts.update(answer["hosts"])
            host = self._signer(call)
        return host

    def _signer(self, call: Call) -> str | None:
        shared = [NO_SECRET] if self._secrets is None else self._secrets.value
        return next(
            (
                host
                for host in self._hosts
                if _is_signed(call, *(secret_of_host(secret, host) for secret in shared))
            ),
            None,
        )

    async def _identify(self, host: str, call: Call) -> Caller:
        if hashlib.sha256(call.body).hexdigest() != call.text(_BODY):
            raise failed("this is not the body that the SuperExec has signed")
        answer = await self._rpc.ask(
            "ReserveNonce",
            namespace=f"superexec:{call.signed_path}",
            nonce=call.text(_NONCE),
            expires_at=float(call.text(_TIMESTAMP)) + OLDEST,
            # This distinguishes our own or our balancer's repetition from a replay.
            holder=call.request_id,
        )
        if not answer["reserved"]:
            raise failed("this SuperExec call was made before")
        return Caller(superexec_host=host)


def _renewable(secret_file: Path) -> Renewable[list[bytes]]:
    return Renewable([secret_file], lambda: read_superexec_secrets(secret_file))


def _is_signed(call: Call, *secrets: bytes) -> bool:
    """Whether a call is signed with one of these secrets."""
    text = (
        f"method={call.signed_path}\nts={call.text(_TIMESTAMP)}\nnonce={call.text(_NONCE)}\n"
        f"body_sha256={call.text(_BODY)}"
    ).encode()
    signature = call.text(_SIGNATURE).encode()
    return any([hmac.compare_digest(_signature(text, secret), signature) for secret in secrets])


def _signature(text: bytes, secret: bytes) -> bytes:
    # flwr 1.33 `supercore/auth/superexec.py`: the key is derived from the secret.
    key = hmac.digest(secret, b"superexec-auth-v1", "sha256")
    return hmac.new(key, text, "sha256").hexdigest().encode()


def failed(reason: str) -> ApiError:
    """Return the refusal of a caller of the Runtime API without proof."""
    return ApiError(ErrorCode.AUTHENTICATION_FAILED, reason)
