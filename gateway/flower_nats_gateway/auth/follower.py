"""Whether a caller may follow a run: asked when its stream begins, and now and then while it goes on."""

import time

from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller

_ASK_EVERY = 5.0
"""Seconds after which a stream is asked for again, unless a hint says before that accounts have changed:
the hint may be lost."""


class Followers:
    """Lets callers follow runs."""

    def __init__(self, rpc: RpcClient) -> None:
        self.rpc = rpc
        self.changes = 0
        """How often accounts have changed, or may have."""

    def note_change(self) -> None:
        """Have every stream asked for again."""
        self.changes += 1

    def follower(self, run_id: int, caller: Caller) -> "Follower":
        """Return a caller that wants to follow a run."""
        return Follower(self, run_id, caller)


class Follower:
    """A caller that follows a run.

    The stream may outlast the token that it was begun with. It ends when the caller's account would be
    refused, or may not see the run any more.
    """

    def __init__(self, followers: Followers, run_id: int, caller: Caller) -> None:
        self._followers = followers
        self._run_id = run_id
        self._token = caller.account_token
        self._session: str | None = None
        self._asked_at = 0.0
        self._changes = 0

    async def check(self) -> None:
        """Raise `ApiError` if the caller may not, or no longer, follow the run."""
        if self._is_known():
            return
        now, changes = time.monotonic(), self._followers.changes
        answer = await self._followers.rpc.look_up(
            "FollowRun",
            run_id=self._run_id,
            account_token=self._token,
            session=self._session or "",
        )
        self._session, self._asked_at, self._changes = answer["session"], now, changes

    def _is_known(self) -> bool:
        if self._session is None:
            return False
        lately = time.monotonic() - self._asked_at < _ASK_EVERY
        # Without accounts there is no session, and nothing to ask.
        return not self._session or (lately and self._changes == self._followers.changes)
