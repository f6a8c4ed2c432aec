"""How many bytes a reply, a node and a run may have stored at once.

A gateway counts the bytes that it stores itself, by push session. When it meets a limit, it asks
the broker which sessions are over, and forgets them. So with several gateways, each limit applies
at each of them.
"""

import time
from collections import Counter
from dataclasses import dataclass

from flower_nats.broker.in_flight import InFlight
from flower_nats.broker.mailbox import Mailbox
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.settings import StorageLimits

_MIB = 1024 * 1024

_SESSION_BYTES = 64 * 1024
"""The least bytes that a push session counts: a small session costs the broker something too."""

_LOOK_AFTER = 5_000
"""Sessions that are opened between two looks at which of them are over. So ended sessions are
forgotten even if no limit is met."""

_LOOK_EVERY = 2.0
"""Seconds between two looks at which sessions of a run are over."""


@dataclass
class _Session:
    sender: int
    size: int


class StorageLimit(ApiError):
    """There would be more stored than one reply, node or run may have."""

    def __init__(self, what: str, mib: int, option: str) -> None:
        reason = f"{what} may have {mib:,} MiB stored at once (--{option} of the gateway)."
        super().__init__(ErrorCode.BODY_TOO_LONG, reason, reason)


class StoredBytes:
    """Counts bytes stored by this gateway, and refuses more than the limits."""

    def __init__(self, mailbox: Mailbox, limits: StorageLimits) -> None:
        self._mailbox = mailbox
        self._limits = limits
        self._sessions: dict[tuple[int, str], _Session] = {}
        self._of_nodes: Counter[int] = Counter()
        self._of_runs: Counter[int] = Counter()
        self._looked_at: dict[int, float] = {}
        self._opened = 0

    async def open(self, run_id: int, session_id: str, sender: int, size: int) -> None:
        """Count the record of a session, once. Raises `StorageLimit` if a limit is exceeded."""
        if (run_id, session_id) in self._sessions:
            return
        self._opened += 1
        if self._opened >= _LOOK_AFTER:
            self._opened = 0
            await self._forget_what_is_over({run for run, _ in self._sessions})
        await self.add(run_id, session_id, sender, max(size, _SESSION_BYTES))

    async def add(self, run_id: int, session_id: str, sender: int, size: int) -> None:
        """Count bytes before they are stored. Raises `StorageLimit` if a limit is exceeded."""
        key, is_node = (run_id, session_id), sender != SUPERLINK_NODE_ID
        known = self._sessions.get(key)
        if is_node and _exceeds((known.size if known else 0) + size, self._limits.reply):
            raise StorageLimit("A reply", self._limits.reply, "max-reply-mib")
        if is_node and _exceeds(self._of_nodes[sender] + size, self._limits.node):
            await self._forget_what_is_over({run for run, _ in self._sessions_of(sender)})
            if _exceeds(self._of_nodes[sender] + size, self._limits.node):
                raise StorageLimit("A SuperNode", self._limits.node, "max-node-mib")
        if _exceeds(self._of_runs[run_id] + size, self._limits.run):
            await self._forget_what_is_over({run_id})
            if _exceeds(self._of_runs[run_id] + size, self._limits.run):
                raise StorageLimit("A run", self._limits.run, "max-run-mib")
        session = self._sessions.setdefault(key, _Session(sender, 0))
        session.size += size
        self._of_runs[run_id] += size
        self._of_nodes[sender] += size

    def forget_run(self, run_id: int) -> None:
        """Forget the sessions of a run; unfinished ones are counted anew from now on."""
        for key in [key for key in self._sessions if key[0] == run_id]:
            self._forget(key)
        self._looked_at.pop(run_id, None)

    def _sessions_of(self, sender: int) -> list[tuple[int, str]]:
        return [key for key, session in self._sessions.items() if session.sender == sender]

    async def _forget_what_is_over(self, runs: set[int]) -> None:
        for run_id in runs:
            now = time.monotonic()
            if now - self._looked_at.get(run_id, float("-inf")) < _LOOK_EVERY:
                continue
            self._looked_at[run_id] = now
            flight = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
            live = flight.sessions - flight.spent_sessions
            for key in [key for key in self._sessions if key[0] == run_id and key[1] not in live]:
                self._forget(key)

    def _forget(self, key: tuple[int, str]) -> None:
        session = self._sessions.pop(key)
        self._of_runs[key[0]] -= session.size
        self._of_nodes[session.sender] -= session.size
        for counts, one in ((self._of_runs, key[0]), (self._of_nodes, session.sender)):
            if not counts[one]:
                del counts[one]


def _exceeds(size: int, mib: int) -> bool:
    return bool(mib) and size > mib * _MIB
