"""Whether a caller may follow a run, checked when its stream begins and regularly after that."""

import time

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError
from flower_nats_gateway.auth.accounts import REFUSED, Renewal
from flower_nats_gateway.calls.call import Call

SESSION = "flower-nats-session"
"""The header with a stream's session, which the log relay gets and sends again when it continues:
the stream may outlast the token with which it began."""

_ASK_EVERY = 5.0
"""Seconds between two checks of a stream. A hint about changed accounts causes an earlier check,
but may be lost."""


class Followers:
    """Lets callers follow runs."""

    def __init__(self, rpc: RpcClient, renewal: Renewal) -> None:
        self.rpc = rpc
        self.renewal = renewal
        self.changes = 0
        """How often accounts have changed, or may have."""

    def note_change(self) -> None:
        """Have every stream checked again."""
        self.changes += 1

    def follower(self, call: Call, run_id: int, caller: Caller) -> "Follower":
        """Return a caller that wants to follow a run."""
        return Follower(self, call, run_id, caller)


class Follower:
    """A caller that follows a run.

    The stream may outlast the token with which it began. It ends when the caller's account would be
    refused or may not see the run any more.
    """

    def __init__(self, followers: Followers, call: Call, run_id: int, caller: Caller) -> None:
        self._followers = followers
        self._call = call
        self._run_id = run_id
        self._caller = caller
        self._session = call.text(SESSION)
        self._asked_at: float | None = None
        self._changes = 0

    async def check(self) -> None:
        """Raise `ApiError` if the caller may not, or no longer, follow the run."""
        if self._is_known():
            return
        now, changes = time.monotonic(), self._followers.changes
        try:
            session = await self._ask()
        except ApiError as exc:
            begins = exc.code is REFUSED and self._asked_at is None
            renewal = self._followers.renewal
            renewed = await renewal.renew(self._call, self._caller) if begins else None
            if renewed is None:
                raise
            self._caller = renewed
            session = await self._ask()
        if self._asked_at is None and session:
            self._call.answer_metadata += ((SESSION, session),)
        self._session, self._asked_at, self._changes = session, now, changes

    async def _ask(self) -> str:
        answer = await self._followers.rpc.look_up(
            "FollowRun",
            run_id=self._run_id,
            account_token=self._caller.account_token,
            session=self._session,
            required=self._caller.accounts_required,
            address=self._call.client_address,
        )
        return str(answer["session"])

    def _is_known(self) -> bool:
        if self._asked_at is None:
            return False
        lately = time.monotonic() - self._asked_at < _ASK_EVERY
        # Without accounts there is no session, and nothing to check.
        return not self._session or (lately and self._changes == self._followers.changes)
