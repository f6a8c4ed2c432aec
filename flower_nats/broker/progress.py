"""How far the messages of a run have come, for an operator whose run seems to hang."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from flower_nats.broker.in_flight import InFlight, SessionRecord
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.subjects import InstructionKey, ReplyKey

_T = TypeVar("_T")
_U = TypeVar("_U")

_AT_ONCE = 32
"""Records that are read at a time."""


class Step(StrEnum):
    """How far an instruction has come."""

    ARRIVING = "arriving"
    """The ServerApp still pushes its objects."""
    PUT_OUT = "put out"
    """It lies in the node's mailbox."""
    TAKEN = "taken"
    """The node has confirmed it."""
    ANSWERING = "answering"
    """The node pushes the objects of its reply."""
    ANSWERED = "answered"
    """The reply waits for the ServerApp."""
    COLLECTED = "collected"
    """The ServerApp has the reply, or the instruction has expired."""


@dataclass(frozen=True)
class Delivery:
    """One instruction."""

    node_id: int
    message_id: str
    step: Step
    since: str
    """When it reached this step (RFC 3339), by the broker's clock; empty if no record tells."""


@dataclass(frozen=True)
class Exchange:
    """The messages that a ServerApp sent with one call, while any of them is in flight."""

    message_type: str
    """Such as `train`."""
    group: str
    """The `group_id` that the ServerApp has given; empty with the strategies of flwr."""
    opened_at: str
    """When the ServerApp began to push it (RFC 3339), by the broker's clock."""
    deliveries: tuple[Delivery, ...]


class Progress:
    """Reads the messages in flight, anew for each question."""

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox

    async def of_run(self, run_id: int) -> list[Exchange]:
        """Return the unfinished exchanges of a run, oldest first. Raises `Unavailable`."""
        flight = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
        accepted = {key.session_id for key in flight.replies.values()}
        sessions = await self._sessions(run_id, flight.sessions - accepted)
        asking = [session for session in sessions if not _is_reply(session)]
        steps = {
            # Each step overwrites those that come before it in the life of an instruction.
            **_arriving(asking, flight.released),
            **await self._in_mailboxes(flight.instructions.values()),
            **_answering(sessions, flight),
            **await self._answered(flight.replies.values()),
        }
        return [_exchange(session, steps) for session in asking]

    async def _sessions(self, run_id: int, ids: Iterable[str]) -> list[SessionRecord]:
        async def load(session_id: str) -> SessionRecord | None:
            return await self._mailbox.load_session(run_id, session_id)

        found = await _for_each(load, ids)
        return sorted(filter(None, found), key=lambda session: session.opened_at)

    async def _in_mailboxes(self, keys: Iterable[InstructionKey]) -> dict[str, tuple[Step, str]]:
        steps = {}
        for written in filter(None, await _for_each(self._mailbox.written, keys)):
            instruction, at = written
            step = Step.TAKEN if instruction.taken else Step.PUT_OUT
            steps[instruction.key.message_id] = (step, at)
        return steps

    async def _answered(self, keys: Iterable[ReplyKey]) -> dict[str, tuple[Step, str]]:
        async def answered(key: ReplyKey) -> tuple[str, str]:
            return key.instruction_id, await self._mailbox.answered_at(key)

        return {
            instruction_id: (Step.ANSWERED if at else Step.COLLECTED, at)
            for instruction_id, at in await _for_each(answered, keys)
        }


def _is_reply(session: SessionRecord) -> bool:
    return any(one.metadata.reply_to_message_id for one in session.outgoing)


def _arriving(
    asking: Iterable[SessionRecord], released: Iterable[str]
) -> dict[str, tuple[Step, str]]:
    return {
        one.metadata.message_id: (Step.ARRIVING, session.opened_at)
        for session in asking
        if session.session_id not in released
        for one in session.outgoing
    }


def _answering(sessions: Iterable[SessionRecord], flight: InFlight) -> dict[str, tuple[Step, str]]:
    return {
        one.metadata.reply_to_message_id: (Step.ANSWERING, session.opened_at)
        for session in sessions
        for one in session.outgoing
        if one.metadata.reply_to_message_id in flight.instructions
    }


def _exchange(session: SessionRecord, steps: Mapping[str, tuple[Step, str]]) -> Exchange:
    metadata = [one.metadata for one in session.outgoing]
    return Exchange(
        message_type=metadata[0].message_type,
        group=metadata[0].group_id,
        opened_at=session.opened_at,
        deliveries=tuple(
            Delivery(
                one.dst_node_id,
                one.message_id,
                *steps.get(one.message_id, (Step.COLLECTED, "")),
            )
            for one in metadata
        ),
    )


async def _for_each(read: Callable[[_T], Awaitable[_U]], keys: Iterable[_T]) -> list[_U]:
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(key: _T) -> _U:
        async with limit:
            return await read(key)

    return list(await asyncio.gather(*map(one, keys)))
