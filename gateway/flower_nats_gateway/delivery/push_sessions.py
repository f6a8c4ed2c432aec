"""Push sessions with objects that are arriving at this gateway, and at others.

A message becomes visible when its last object is stored: an instruction is released to its node, a
reply accepted. The session's record in the broker is authoritative. A gateway has only a view of
it, which every gateway can rebuild. If a gateway dies, or a hint between gateways is lost, the
housekeeping of the superlinks completes the session.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from typing import Any

from flower_nats.broker.in_flight import InFlight, SessionRecord
from flower_nats.broker.mailbox import Mailbox, session_id_of
from flower_nats.broker.objects import Objects, read_numbers
from flower_nats.logs import get_logger
from flower_nats.wire.messages import Outgoing
from flower_nats_gateway.delivery.push_session import PushSession
from flower_nats_gateway.delivery.stored_bytes import StoredBytes

log = get_logger(__name__)

_SESSIONS = 10_000
"""Sessions with a view at a gateway. An older one is read from the broker again."""

_FEW = 32
"""Up to this many objects, each is asked for. For more, the run's objects are listed first."""


class PushSessions:
    """The push sessions of which this gateway has a view."""

    def __init__(self, mailbox: Mailbox, objects: Objects, stored_bytes: StoredBytes) -> None:
        self._mailbox = mailbox
        self._stored_bytes = stored_bytes
        self._objects = objects
        self._views: OrderedDict[tuple[int, str], PushSession] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, run_id: int, outgoing: Sequence[Outgoing]) -> PushSession:
        """Open a push session for messages of one run. Raises `StorageLimit`."""
        session_id, sender = session_id_of(outgoing), outgoing[0].metadata.src_node_id
        size = sum(one.size for one in outgoing)
        await self._stored_bytes.open(run_id, session_id, sender, size)
        await self._mailbox.open_session(run_id, outgoing)
        view = self._views.get((run_id, session_id))
        # A second try finds the objects of the first.
        if view is not None and view.is_fresh:
            return view
        return self._keep(PushSession(run_id, session_id, outgoing))

    async def find(self, run_id: int, session_id: str) -> PushSession | None:
        """Return a push session, or None if there is none."""
        view = self._views.get((run_id, session_id))
        if view is not None and view.is_fresh:
            return view
        session = await self._mailbox.load_session(run_id, session_id)
        if session is None:
            self._views.pop((run_id, session_id), None)
            return None
        # The view is stored before the look, so that no hint is missed in between.
        view = self._keep(PushSession(run_id, session_id, session.outgoing))
        for object_id in await self._present(session, view.object_ids):
            view.note(object_id)
        return view

    async def arrived(self, view: PushSession, object_id: str) -> None:
        """Note that an object is stored, and release the messages that it completes."""
        if view.waits_for(object_id):
            view.note(object_id)
        else:
            view.note_again(object_id)
        due = view.take_due()
        await self._objects.announce(view.run_id, object_id, view.session_id, due)
        if due:
            await self._put_all_out(view, due)

    async def waiting_for(self, run_id: int, object_id: str, sender: int) -> PushSession | None:
        """Return a push session of this node in the run that waits for this object, or None.

        Clients of flwr 1.30 to 1.32 do not say which session an object belongs to. An object is
        stored once per run, so any session that waits for it will do.
        """
        for (view_run, _), view in self._views.items():
            if view_run == run_id and view.sender == sender and view.waits_for(object_id):
                return view
        flight = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
        for session_id in flight.unfinished_sessions:
            found = await self.find(run_id, session_id)
            if found is not None and found.sender == sender and found.waits_for(object_id):
                return found
        return None

    async def announced(self, run_id: int, object_id: str) -> bool:
        """Return whether some push session of the run still waits for this object."""
        for (view_run, _), view in self._views.items():
            if view_run == run_id and view.waits_for(object_id):
                return True
        flight = (await self._mailbox.in_flight(run_id)).get(run_id, InFlight())
        for session_id in flight.unfinished_sessions:
            session = await self._mailbox.load_session(run_id, session_id)
            if session and any(object_id in one.object_ids for one in session.outgoing):
                return True
        return False

    async def _put_all_out(self, view: PushSession, due: Sequence[int]) -> None:
        try:
            await asyncio.gather(*(self._put_out(view, view.messages[one]) for one in due))
        except BaseException:
            # The next try releases all of them again: messages that are released stay released.
            view.put_back(due)
            raise
        if view.note_out(due):
            await self._finish(view)
        elif view.brings_instructions:
            await self._objects.announce_out(view.run_id, view.session_id, due)

    async def _put_out(self, view: PushSession, outgoing: Outgoing) -> None:
        if not outgoing.metadata.reply_to_message_id:
            await self._mailbox.release(view.session_id, outgoing)
            return
        accepted = await self._mailbox.accept_reply(view.run_id, view.session_id, outgoing)
        if not accepted:
            log.info(
                "reply_refused",
                run_id=view.run_id,
                node_id=outgoing.metadata.src_node_id,
                instruction_id=outgoing.metadata.reply_to_message_id,
                reason="the instruction has its reply",
            )

    async def _finish(self, view: PushSession) -> None:
        self._drop(view)
        if view.brings_instructions:
            await self._mailbox.mark_released(view.run_id, view.session_id)
            await self._objects.announce_out(view.run_id, view.session_id, ())

    async def _present(self, session: SessionRecord, wanted: Sequence[str]) -> list[str]:
        """Return which objects of a session have arrived."""
        if len(wanted) > _FEW:
            held = await self._objects.ids(session.run_id)
            wanted = [object_id for object_id in wanted if object_id in held]
        answers = await asyncio.gather(
            *(
                self._objects.stored_since(session.run_id, one, session.objects_since)
                for one in wanted
            )
        )
        return [one for one, held in zip(wanted, answers, strict=True) if held]

    def _keep(self, view: PushSession) -> PushSession:
        self._views[(view.run_id, view.session_id)] = view
        # Another gateway may have finished messages without our hearing of it.
        while not (oldest := next(iter(self._views.values()))).is_fresh:
            self._drop(oldest)
        while len(self._views) > _SESSIONS:
            self._views.popitem(last=False)
        return view

    def _drop(self, view: PushSession) -> None:
        self._views.pop((view.run_id, view.session_id), None)

    def note_object(self, run_id: int, object_id: str, payload: bytes) -> None:
        """Note the hint of a gateway that has stored an object."""
        session_id, claims = read_numbers(payload)
        view = self._views.get((run_id, session_id))
        if view is None:
            return
        view.note_claims(claims)
        view.note(object_id)
        due = view.take_due()
        if due:
            self._spawn(self._put_all_out(view, due), view)
        elif claims and not view.brings_instructions:
            # Another gateway is accepting the one reply of this session.
            self._drop(view)

    def note_out(self, run_id: int, payload: bytes) -> None:
        """Note the hint of a gateway that has released messages of a session."""
        session_id, numbers = read_numbers(payload)
        view = self._views.get((run_id, session_id))
        if view is None:
            return
        if not numbers:
            # Another gateway has finished the session.
            self._drop(view)
        elif view.note_out(numbers):
            self._spawn(self._finish(view), view)

    def _spawn(self, work: Coroutine[Any, Any, None], view: PushSession) -> None:
        task = asyncio.create_task(work, name=f"session {view.session_id}")
        self._tasks.add(task)
        task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            # No call waits for this; the housekeeping repeats it.
            log.warning("session_left_unfinished", reason=repr(task.exception()))
