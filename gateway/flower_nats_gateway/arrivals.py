"""Push sessions whose objects are arriving at this gateway.

A message becomes visible when its last object is stored: an instruction is released to its node, a
reply accepted. The truth is the session's record in the broker; what is here is a view of it that any
gateway can build again. Should the last two objects of a message arrive at two gateways at the same
moment, neither may see it whole: the housekeeping of the superlinks then completes the session.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence

from flower_nats.broker.hints import Wakes
from flower_nats.broker.mailbox import InFlight, Mailbox, Session
from flower_nats.broker.objects import Objects
from flower_nats.logs import get_logger
from flower_nats.wire.messages import Outgoing

log = get_logger(__name__)

_SESSIONS = 10_000
"""Sessions a gateway keeps a view of; an older one is read from the broker again."""

_FRESH = 60.0
"""Seconds without an object for which a view is believed: a session without one is dropped."""

_FEW = 32
"""Objects up to which the run's are not listed first, to see which are worth asking for."""


class Arrival:
    """One push session: which objects each of its messages still waits for."""

    def __init__(self, run_id: int, session_id: str, outgoing: Sequence[Outgoing]) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self._messages = list(outgoing)
        self._waiting: dict[str, list[int]] = {}
        self._missing: list[int] = []
        self._whole: list[int] = []
        self._out = 0
        for number, one in enumerate(outgoing):
            ids = one.object_ids
            self._missing.append(len(ids))
            for object_id in ids:
                self._waiting.setdefault(object_id, []).append(number)
        self._wanted = frozenset(self._waiting)
        self._touched_at = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        """Whether its session is there for sure."""
        return time.monotonic() - self._touched_at < _FRESH

    @property
    def object_ids(self) -> list[str]:
        """The objects that have not arrived, each once, children before parents."""
        return list(self._waiting)

    def wants(self, object_id: str) -> bool:
        """Whether the object belongs to this session, arrived or not."""
        return object_id in self._wanted

    def waits_for(self, object_id: str) -> bool:
        """Whether the object has not arrived yet."""
        return object_id in self._waiting

    def note(self, object_id: str) -> None:
        """Note that an object has arrived."""
        self._touched_at = time.monotonic()
        for number in self._waiting.pop(object_id, ()):
            self._missing[number] -= 1
            if self._missing[number] == 0:
                self._whole.append(number)

    def take_whole(self) -> list[Outgoing]:
        """Return the messages that are whole and not out, for the caller to put out."""
        numbers, self._whole = self._whole, []
        return [self._messages[number] for number in numbers]

    def put_back(self, outgoing: Sequence[Outgoing]) -> None:
        """Note that messages could not be put out: the next try is due."""
        self._whole += [self._messages.index(one) for one in outgoing]

    def count_out(self, count: int) -> bool:
        """Note that messages are out; return whether all are now."""
        self._out += count
        return self._out == len(self._messages)


class Arrivals:
    """The push sessions that this gateway has a view of."""

    def __init__(self, mailbox: Mailbox, objects: Objects, wakes: Wakes) -> None:
        self._mailbox = mailbox
        self._objects = objects
        self._views: OrderedDict[tuple[int, str], Arrival] = OrderedDict()
        wakes.listen("fn.wake.object.", self._on_object)

    async def open(self, run_id: int, outgoing: Sequence[Outgoing]) -> Arrival:
        """Open a push session for messages of one run."""
        session_id = await self._mailbox.open_session(run_id, outgoing)
        view = self._views.get((run_id, session_id))
        # A second try finds what the first has brought.
        if view is not None and view.is_fresh:
            return view
        return self._keep(Arrival(run_id, session_id, outgoing))

    async def find(self, run_id: int, session_id: str) -> Arrival | None:
        """Return a push session, or None if there is none (any more)."""
        view = self._views.get((run_id, session_id))
        if view is not None and view.is_fresh:
            return view
        session = await self._mailbox.load_session(run_id, session_id)
        if session is None:
            self._views.pop((run_id, session_id), None)
            return None
        arrival = Arrival(run_id, session_id, session.outgoing)
        for object_id in await self._present(session, arrival.object_ids):
            arrival.note(object_id)
        return self._keep(arrival)

    async def arrived(self, arrival: Arrival, object_id: str) -> None:
        """Note that an object is stored and put out the messages that are whole with it."""
        arrival.note(object_id)
        whole = arrival.take_whole()
        if not whole:
            return
        try:
            await asyncio.gather(*(self._put_out(arrival, one) for one in whole))
        except BaseException:
            # All of them again at the next try: what is out already stays out.
            arrival.put_back(whole)
            raise
        if arrival.count_out(len(whole)):
            await self._finish(arrival, whole[0])

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

    async def _put_out(self, arrival: Arrival, outgoing: Outgoing) -> None:
        if not outgoing.metadata.reply_to_message_id:
            await self._mailbox.release(arrival.session_id, outgoing)
            return
        accepted = await self._mailbox.accept_reply(arrival.run_id, arrival.session_id, outgoing)
        if not accepted:
            log.info(
                "reply_refused",
                run_id=arrival.run_id,
                node_id=outgoing.metadata.src_node_id,
                instruction_id=outgoing.metadata.reply_to_message_id,
                reason="the instruction has its reply",
            )

    async def _finish(self, arrival: Arrival, last: Outgoing) -> None:
        self._views.pop((arrival.run_id, arrival.session_id), None)
        if not last.metadata.reply_to_message_id:
            await self._mailbox.mark_released(arrival.run_id, arrival.session_id)

    async def _present(self, session: Session, wanted: Sequence[str]) -> list[str]:
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

    def _keep(self, arrival: Arrival) -> Arrival:
        self._views[(arrival.run_id, arrival.session_id)] = arrival
        while len(self._views) > _SESSIONS:
            self._views.popitem(last=False)
        return arrival

    def _on_object(self, subject: str, payload: bytes) -> None:
        _, _, _, run, object_id = subject.split(".")
        view = self._views.get((int(run), payload.decode("ascii", "replace")))
        if view is not None:
            view.note(object_id)
