"""Housekeeping of messages in flight that gateways left behind or cannot know.

Each pass looks at all messages in flight and repairs the cases below. Two passes at once, on two
replicas, do no harm.

- an instruction whose node is gone, or has left the run's federation, gets an error reply;
- the remaining messages of a run that has ended are dropped;
- a push session with all its objects, but with a gateway that died before it released the messages,
  is completed; a session without a push for `SESSION_SECONDS`, in which clients could reach us, is
  given up, and if it was for a reply, the instruction gets an error reply;
- objects that no session needs are collected.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from flower_nats.broker.error_replies import ErrorReplies
from flower_nats.broker.in_flight import InFlight, SessionRecord, as_moment
from flower_nats.broker.mailbox import Mailbox
from flower_nats.broker.objects import Objects
from flower_nats.broker.pushers import Pushers, pusher_of
from flower_nats.broker.subjects import InstructionKey
from flower_nats.logs import get_logger
from flower_nats.model.errors import Unavailable
from flower_nats.wire.messages import Outgoing

log = get_logger(__name__)

SESSION_SECONDS = 180.0
"""Seconds without a push after which a push session is given up (flwr 1.33
OBJECT_PUSH_SESSION_TTL_SECONDS)."""

_CUT_OFF = "its SuperNode stopped sending it before it was complete."

_YOUNG = timedelta(seconds=3)
"""Age up to which an open session is left to its gateway."""

_KEPT = timedelta(seconds=5)
"""Age up to which objects are kept in any case.

A session's own objects may be somewhat older than its record. So objects that are older by up to
this much are kept for it too."""

_LOOK_EVERY = 30.0
"""Seconds between two looks for objects of runs without messages in flight: a gateway that was
stopped may store an object after the rest of its run is gone."""

_STRAGGLER = timedelta(seconds=20)
"""Age of a run's oldest session from which objects are collected one by one. With a younger
session, all objects before it are dropped at once."""

_ERRORS_AT_ONCE = 16

_OUTAGE = 10.0
"""Seconds between two complete passes after which clients may have been unable to push."""

Statuses = Callable[[Sequence[int]], Awaitable[Mapping[int, str]]]
"""Looks up the status of runs by id; unknown runs are left out."""

Reachable = Callable[[Sequence[tuple[int, int]]], Awaitable[Container[tuple[int, int]]]]
"""Looks up which pairs of a run and a node belong together: the run's federation has the node, and
the node is online."""


class MessageHousekeeping:
    """Repairs messages in flight, pass by pass."""

    def __init__(
        self,
        mailbox: Mailbox,
        objects: Objects,
        reachable: Reachable,
        run_statuses: Statuses,
        is_heard: Callable[[], Awaitable[bool]],
        pushers: Pushers,
    ) -> None:
        """`is_heard` says whether clients' messages reach the runtime at present."""
        self._mailbox = mailbox
        self._objects = objects
        self._error_replies = ErrorReplies(mailbox, objects)
        self._reachable = reachable
        self._run_statuses = run_statuses
        self._uptime = _Uptime(is_heard)
        self._pushers = pushers
        self._sessions: dict[tuple[int, str], SessionRecord] = {}
        self._with_objects: set[int] = set()
        self._looked_at: float | None = None

    async def sweep(self) -> None:
        """Make one pass. Raises `Unavailable` if a server is out of reach."""
        await self._uptime.begin_pass()
        await self._look_for_objects()
        # The horizon comes before the look: objects of a session that begins after the look are
        # beyond it.
        horizon = await self._objects.horizon(as_moment(datetime.now(UTC) - _KEPT))
        flights = await self._mailbox.in_flight()
        runs = {*flights, *self._with_objects}
        statuses = await self._run_statuses(sorted(runs)) if runs else {}
        over = {run_id for run_id in runs if statuses.get(run_id) != "running"}
        for run_id in over:
            await _one(run_id, self._mailbox.end_run(run_id))
        flights = {run_id: flight for run_id, flight in flights.items() if run_id not in over}
        await self._answer_for_lost_nodes(flights)
        for run_id, flight in flights.items():
            await _one(run_id, self._mend_sessions(run_id, flight))
        for run_id in runs - over:
            await _one(run_id, self._collect(run_id, flights.get(run_id, InFlight()), horizon))
        self._with_objects = set(flights)
        self._forget_sessions(flights)
        self._pushers.forget(SESSION_SECONDS)
        self._uptime.end_pass()

    async def _look_for_objects(self) -> None:
        if self._looked_at is None or time.monotonic() - self._looked_at > _LOOK_EVERY:
            self._with_objects |= await self._objects.runs()
            self._looked_at = time.monotonic()

    # Instructions

    async def _answer_for_lost_nodes(self, flights: Mapping[int, InFlight]) -> None:
        waiting = [key for flight in flights.values() for key in flight.instructions.values()]
        pairs = sorted({(key.run_id, key.node_id) for key in waiting})
        reachable = await self._reachable(pairs) if pairs else ()
        lost = [key for key in waiting if (key.run_id, key.node_id) not in reachable]
        limit = asyncio.Semaphore(_ERRORS_AT_ONCE)

        async def answer(key: InstructionKey) -> None:
            async with limit:
                await _one(key.run_id, self._answer_for_lost_node(key, flights[key.run_id]))

        await asyncio.gather(*(answer(key) for key in lost))

    async def _answer_for_lost_node(self, key: InstructionKey, flight: InFlight) -> None:
        if key.message_id in flight.replies:
            # Its gateway died after it accepted the reply, before it removed the instruction.
            await self._mailbox.end_instruction(key.run_id, key.message_id)
            return
        found = await self._mailbox.find_instruction(key.run_id, key.node_id, key.message_id)
        if found is None:
            return
        given = await self._error_replies.end(key.run_id, found.outgoing.metadata)
        if given is not None:
            log.info("node_unavailable", run_id=key.run_id, node_id=key.node_id)

    # Push sessions

    async def _mend_sessions(self, run_id: int, flight: InFlight) -> None:
        for session_id in flight.spent_sessions:
            if not await self._has_replies(run_id, session_id, flight):
                await self._mailbox.close_session(run_id, session_id)
        open_sessions = [await self._session(run_id, one) for one in flight.unfinished_sessions]
        old = [one for one in open_sessions if one and _age(one.opened_at) > _YOUNG]
        present = await self._objects.ids(run_id) if old else set()
        for session in old:
            await self._mend_session(session, present, flight)

    async def _has_replies(self, run_id: int, session_id: str, flight: InFlight) -> bool:
        """Return whether a reply to an instruction of the session is not yet confirmed.

        Until then the ServerApp may not know that the whole session has arrived, and may push
        again.
        """
        session = await self._session(run_id, session_id)
        outgoing = session.outgoing if session else ()
        return any(one.metadata.message_id in flight.replies for one in outgoing)

    async def _mend_session(
        self, session: SessionRecord, present: set[str], flight: InFlight
    ) -> None:
        wanted = _ids(session.outgoing)
        if wanted <= present and await self._has_all(session, wanted):
            log.info("session_completed", run_id=session.run_id, session_id=session.session_id)
            await self._put_out(session)
        elif await self._is_abandoned(session, wanted & present):
            await self._give_up(session, flight)

    async def _give_up(self, session: SessionRecord, flight: InFlight) -> None:
        """End an incomplete push session, so that each of its messages has one outcome."""
        metadata = session.outgoing[0].metadata
        if not metadata.reply_to_message_id:
            # Released instructions of the session still need it, and end as usual. The others
            # become unknown, and the ServerApp learns that when it asks for the replies.
            await self._mailbox.mark_released(session.run_id, session.session_id)
        elif not await self._end_cut_off(session, metadata.reply_to_message_id, flight):
            return
        log.info("session_dropped", run_id=session.run_id, session_id=session.session_id)

    async def _end_cut_off(
        self, session: SessionRecord, instruction_id: str, flight: InFlight
    ) -> bool:
        """End the instruction of a lost reply; return whether the session was closed."""
        run_id, key = session.run_id, flight.instructions.get(instruction_id)
        if key is not None:
            written = await self._mailbox.written(key)
            if written is None or _is_later(written[1], session.opened_at):
                # The instruction was just answered, or was offered again to its node, which may
                # work on it.
                return False
            instruction = written[0].outgoing.metadata
            if await self._error_replies.end_lost(run_id, instruction, _CUT_OFF) is None:
                return False
        again = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
        reply = again.replies.get(instruction_id)
        if instruction_id in again.instructions or (
            reply is not None and reply.session_id == session.session_id
        ):
            return False
        await self._mailbox.close_session(run_id, session.session_id)
        return True

    async def _has_all(self, session: SessionRecord, wanted: Iterable[str]) -> bool:
        """Return whether all objects are the session's own, and none is from before it."""
        found = await asyncio.gather(
            *(
                self._objects.stored_since(session.run_id, one, session.objects_since)
                for one in wanted
            )
        )
        return all(found)

    async def _is_abandoned(self, session: SessionRecord, stored: Iterable[str]) -> bool:
        quiet = timedelta(seconds=SESSION_SECONDS)
        if _age(session.opened_at) < quiet or self._uptime.span() < quiet:
            return False
        if self._pushers.pushed_within(pusher_of(session.outgoing[0].metadata), SESSION_SECONDS):
            return False
        since = as_moment(datetime.now(UTC) - quiet)
        for object_id in stored:
            if await self._objects.stored_since(session.run_id, object_id, since):
                return False
        return True

    async def _put_out(self, session: SessionRecord) -> None:
        replies = [one for one in session.outgoing if one.metadata.reply_to_message_id]
        for one in replies:
            await self._mailbox.accept_reply(session.run_id, session.session_id, one)
        if not replies:
            for one in session.outgoing:
                await self._mailbox.release(session.session_id, one)
            await self._mailbox.mark_released(session.run_id, session.session_id)

    # Objects

    async def _collect(self, run_id: int, flight: InFlight, horizon: int) -> None:
        needed = flight.sessions - flight.spent_sessions
        if not needed:
            await self._objects.collect_all(run_id, horizon)
            return
        found = [await self._session(run_id, one) for one in sorted(needed)]
        sessions = [session for session in found if session is not None]
        if len(sessions) < len(found):
            # A session was closed during the pass. The next pass collects.
            return
        oldest = min(session.opened_at for session in sessions)
        before = as_moment(datetime.fromisoformat(oldest) - _KEPT)
        await self._objects.collect_before(run_id, before, horizon)
        if _age(oldest) > _STRAGGLER:
            await self._collect_exactly(run_id, sessions, horizon)

    async def _collect_exactly(
        self, run_id: int, sessions: Iterable[SessionRecord], horizon: int
    ) -> None:
        needed = {one for session in sessions for one in _ids(session.outgoing)}
        for object_id in await self._objects.ids(run_id) - needed:
            await self._objects.collect_one(run_id, object_id, horizon)

    async def _session(self, run_id: int, session_id: str) -> SessionRecord | None:
        """Return a session, which is read once because its record never changes."""
        key = (run_id, session_id)
        known = self._sessions.get(key)
        if known is None:
            known = await self._mailbox.load_session(run_id, session_id)
            if known is not None:
                self._sessions[key] = known
        return known

    def _forget_sessions(self, flights: Mapping[int, InFlight]) -> None:
        self._sessions = {
            (run_id, session_id): session
            for (run_id, session_id), session in self._sessions.items()
            if run_id in flights and session_id in flights[run_id].sessions
        }


class _Uptime:
    """How long clients could reach the runtime without a break, as far as this replica knows."""

    def __init__(self, is_heard: Callable[[], Awaitable[bool]]) -> None:
        self._is_heard = is_heard
        self._since = self._begun = self._last_whole = time.monotonic()

    async def begin_pass(self) -> None:
        """Look for an outage: no complete pass for a while, or no client is heard."""
        self._begun = time.monotonic()
        if self._begun - self._last_whole > _OUTAGE or not await self._is_heard():
            self._since = time.monotonic()

    def end_pass(self) -> None:
        """Note that the last pass is complete."""
        self._last_whole = self._begun

    def span(self) -> timedelta:
        """Return the time since the last outage."""
        return timedelta(seconds=time.monotonic() - self._since)


async def _one(run_id: int, work: Awaitable[None]) -> None:
    """Repair a run; an error must not affect other runs."""
    try:
        await work
    except Unavailable:
        raise
    except Exception:
        log.exception("run_not_mended", run_id=run_id)


def _ids(outgoing: Iterable[Outgoing]) -> set[str]:
    return {object_id for one in outgoing for object_id in one.object_ids}


def _is_later(moment: str, other: str) -> bool:
    return datetime.fromisoformat(moment) > datetime.fromisoformat(other)


def _age(moment: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(moment)
