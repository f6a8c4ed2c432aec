"""Who is calling: one authenticator per API.

An authenticator takes a call whose body was not read yet: what its metadata does not prove is refused
before anybody has to hold a body for it. It gives what then tells, from the whole call, the caller. Both
raise the `ApiError` that makes stock clients do what they do against a stock SuperLink.
"""

import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats_gateway.auth.signatures import Verifier
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.cluster.directory import Directory, Task
from flower_nats_gateway.runlog.pending import PendingLines

Identify = Callable[[Call], Awaitable[Caller]]
"""Tells who makes a call, once its body is there."""

Authenticator = Callable[[Call], Awaitable[Identify]]

# The accepted age of a timestamp, exclusive (flwr 1.33 `common/constant.py`, SYSTEM_TIME_TOLERANCE
# and TIMESTAMP_TOLERANCE), in seconds.
_YOUNGEST = -5.0
_OLDEST = 305.0

# flwr 1.33 `supercore/constant.py` and `supercore/interceptors`.
PUBLIC_KEY = "flwr-public-key-bin"
SIGNATURE = "flwr-signature-bin"
TIMESTAMP = "flwr-timestamp"
TASK_TOKEN = "flwr-task-token"
SUPEREXEC_TIMESTAMP = "flwr-superexec-ts"
SUPEREXEC_NONCE = "flwr-superexec-nonce"
SUPEREXEC_BODY = "flwr-superexec-body-sha256"
SUPEREXEC_SIGNATURE = "flwr-superexec-signature"

_BEFORE_REGISTRATION = frozenset({"RegisterNode", "ActivateNode"})
_SUPEREXEC_METHODS = frozenset({"PullPendingTasks", "ClaimTask", "GetRun"})
_LONGEST_NONCE = 256

_FAREWELLS = frozenset({"UnregisterNode", "PushTaskOutput", "PushLogs", "SendTaskHeartbeat"})
"""What may still be said for a node that was unregistered, or a task that has finished itself, by its
process: what ended it once more, if the gateway that was to answer died; the others on threads that
have not ended yet. To refuse them would have stock interrupt itself, and a ServerApp hang for ever if
that comes in its exit handlers."""


def authenticate_nobody() -> Authenticator:
    """Control without accounts: everybody is the one account there is."""

    async def authenticate(_call: Call) -> Identify:
        return partial(_the_same, Caller())

    return authenticate


class FleetAuthenticator:
    """SuperNodes sign the time of each call with their key, and must claim the id that is the key's."""

    def __init__(self, identities: Directory, verifier: Verifier, *, supernode_auth: bool) -> None:
        self._identities = identities
        self._verifier = verifier
        self._supernode_auth = supernode_auth

    async def __call__(self, call: Call) -> Identify:
        """Check who has signed this call."""
        public_key, signature = call.binary(PUBLIC_KEY), call.binary(SIGNATURE)
        timestamp = call.text(TIMESTAMP)
        if not (public_key and signature and timestamp):
            raise ApiError(ErrorCode.MISSING_AUTH_METADATA, "key, signature or timestamp missing")
        signed_at = _parse_iso(timestamp)
        _check_age(signed_at)
        if not await self._verifier.verify(public_key, timestamp.encode("ascii"), signature):
            raise ApiError(ErrorCode.INVALID_SIGNATURE, "the signature is not by this key")
        caller = Caller(
            public_key=public_key, signed_at=signed_at, supernode_auth=self._supernode_auth
        )
        if call.method.name in _BEFORE_REGISTRATION:
            return partial(_signed_by_its_key, caller)
        node = await self._identities.node(public_key)
        if node is None or (node.has_left and call.method.name not in _FAREWELLS):
            raise ApiError(ErrorCode.INVALID_NODE_ID, "no node that is let in owns this key")
        return partial(_signed_by_its_node, replace(caller, node_id=node.node_id))


class RuntimeAuthenticator:
    """Tasks bring their token; SuperExecs prove, if there is a shared secret, that they know it."""

    def __init__(
        self,
        identities: Directory,
        unstored: PendingLines,
        rpc: RpcClient,
        secret: bytes | None,
    ) -> None:
        self._identities = identities
        self._unstored = unstored
        self._rpc = rpc
        # flwr 1.33 `supercore/auth/superexec.py`: the key is derived from the secret.
        self._key = hmac.digest(secret, b"superexec-auth-v1", "sha256") if secret else None

    async def __call__(self, call: Call) -> Identify:
        """Check which task, or that a nameless SuperExec, makes this call."""
        if call.method.name in _SUPEREXEC_METHODS:
            if self._key is None:
                return partial(_the_same, Caller())
            _check_superexec(call, self._key)
            return self._identify_superexec
        token = call.text(TASK_TOKEN)
        task = await self._task(call, token) if token else None
        if task is None or (task.finished and call.method.name not in _FAREWELLS):
            raise _failed("no task has this token" if task is None else "this task is finished")
        caller = Caller(task_id=task.task_id, run_id=task.run_id, task_type=task.type, token=token)
        return partial(_the_same, caller)

    async def _task(self, call: Call, token: str) -> Task | None:
        asking = self._identities.task(token)
        if call.method.name == "PushLogs":
            asking = self._unstored.until_known(asking)
        return await asking

    async def _identify_superexec(self, call: Call) -> Caller:
        if hashlib.sha256(call.body).hexdigest() != call.text(SUPEREXEC_BODY):
            raise _failed("this is not the body that the SuperExec has signed")
        answer = await self._rpc.ask(
            "ReserveNonce",
            namespace=f"superexec:{call.method.path}",
            nonce=call.text(SUPEREXEC_NONCE),
            expires_at=float(call.text(SUPEREXEC_TIMESTAMP)) + _OLDEST,
            # Tells a second try, ours or our balancer's, from a replay.
            holder=call.request_id,
        )
        if not answer["reserved"]:
            raise _failed("this SuperExec call was made before")
        return Caller()


async def _the_same(caller: Caller, _call: Call) -> Caller:
    """Whoever makes a call whose metadata says it all."""
    return caller


async def _signed_by_its_key(caller: Caller, call: Call) -> Caller:
    request: Any = call.parse(call.method.request)
    if request.public_key != caller.public_key:
        raise ApiError(ErrorCode.INVALID_SIGNATURE, "the key is not the one that signed")
    return caller


async def _signed_by_its_node(caller: Caller, call: Call) -> Caller:
    request: Any = call.parse(call.method.request)
    claimed = getattr(request, "node", request).node_id
    if caller.node_id != claimed:
        raise ApiError(ErrorCode.INVALID_NODE_ID, f"node {claimed} does not own this key")
    return caller


def _check_superexec(call: Call, key: bytes) -> None:
    timestamp, nonce = call.text(SUPEREXEC_TIMESTAMP), call.text(SUPEREXEC_NONCE)
    if not (timestamp.isdecimal() and len(timestamp) < 20 and 0 < len(nonce) <= _LONGEST_NONCE):
        raise _failed("SuperExec timestamp or nonce missing")
    try:
        _check_age(float(timestamp))
    except ApiError as exc:
        raise _failed(exc.detail) from exc
    body = call.text(SUPEREXEC_BODY)
    text = f"method={call.method.path}\nts={timestamp}\nnonce={nonce}\nbody_sha256={body}"
    expected = hmac.new(key, text.encode(), "sha256").hexdigest()
    if not hmac.compare_digest(expected, call.text(SUPEREXEC_SIGNATURE)):
        raise _failed("the SuperExec does not know the secret")


def _failed(reason: str) -> ApiError:
    return ApiError(ErrorCode.AUTHENTICATION_FAILED, reason)


def _parse_iso(timestamp: str) -> float:
    try:
        moment = datetime.fromisoformat(timestamp)
        timestamp.encode("ascii")
    except ValueError as exc:
        raise ApiError(ErrorCode.INVALID_TIMESTAMP, f"{timestamp[:64]!r} is no time") from exc
    # Stock clients send an aware time; a naive one can only be meant as UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _check_age(moment: float) -> None:
    age = time.time() - moment
    if not _YOUNGEST < age < _OLDEST:
        raise ApiError(ErrorCode.INVALID_TIMESTAMP, f"the caller's clock is off by {-age:.0f} s")
