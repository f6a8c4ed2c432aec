"""Serving objects, with a bounded cache of those that many read."""

import asyncio
import time
from collections import OrderedDict
from functools import partial

from flower_nats.broker import subjects
from flower_nats.broker.exchange_notes import NOWHERE, ExchangeNotes
from flower_nats.broker.hints import Wakes
from flower_nats.broker.objects import Objects
from flower_nats.logs import get_logger
from flower_nats.model.caller import SUPERLINK_NODE_ID
from flower_nats.wire import common_pb2 as common
from flower_nats.wire.bulk import write_pull_object_response
from flower_nats.wire.messages import check_object, is_object_id
from flower_nats_gateway.calls.answers import LARGE, Answer, LargeAnswer
from flower_nats_gateway.calls.body_limit import SMALL
from flower_nats_gateway.calls.call import Drain
from flower_nats_gateway.delivery.push_session import PushSession
from flower_nats_gateway.delivery.push_sessions import PushSessions
from flower_nats_gateway.delivery.reply_metrics import ReplyMetrics
from flower_nats_gateway.delivery.stored_bytes import StoredBytes

log = get_logger(__name__)

CACHE_BYTES = 48 * 1024 * 1024
"""Bytes of objects that a gateway caches: it reads a broadcast from the broker once."""

READS = 4
"""Objects that are read from the broker at once."""

HOLD = 20.0
"""Seconds for which a reader of an announced object is held until the object is complete."""


class ObjectCache:
    """Recently used values, up to so many bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._values: OrderedDict[tuple[int, str], bytes] = OrderedDict()

    def get(self, key: tuple[int, str]) -> bytes | None:
        """Return a value and mark it as used."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: tuple[int, str], value: bytes) -> None:
        """Keep a value; the least recently used values make room."""
        if key in self._values or len(value) > self._limit:
            return
        self._values[key] = value
        self._size += len(value)
        while self._size > self._limit:
            _, dropped = self._values.popitem(last=False)
            self._size -= len(dropped)

    def drop_run(self, run_id: int) -> None:
        """Forget the values of a run."""
        for key in [key for key in self._values if key[0] == run_id]:
            self._size -= len(self._values.pop(key))


class ObjectService:
    """PullObject and PushObject of both APIs."""

    def __init__(
        self,
        objects: Objects,
        push_sessions: PushSessions,
        stored_bytes: StoredBytes,
        wakes: Wakes,
        drain: Drain,
        notes: ExchangeNotes = NOWHERE,
        metrics: ReplyMetrics | None = None,
    ) -> None:
        self._objects = objects
        self._notes = notes
        self._metrics = metrics or ReplyMetrics(notes, recorded=False)
        self._stored_bytes = stored_bytes
        self._push_sessions = push_sessions
        self._wakes = wakes
        self._drain = drain
        self._cache = ObjectCache(CACHE_BYTES)
        self._reads = asyncio.Semaphore(READS)
        self._taking: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._reading: dict[tuple[int, str], asyncio.Future[Answer | None]] = {}

    async def push(
        self, request: common.PushObjectRequest, content: memoryview, *, sender: int
    ) -> bool | None:
        """Store an object of a push session; return False if the session does not want it.

        `sender` is the node that pushes; the SuperLink's node id stands for the ServerApp. Returns
        None if the sender has no such session. Raises `ApiError` if the object is malformed, or
        `Unavailable`. Then the caller tries again; an object that is already stored is accepted
        again.
        """
        object_id = request.object_id
        view = await self.session_of(request, sender=sender)
        if view is not None and not view.wants(object_id):
            return False
        if len(content) > SMALL:
            await asyncio.to_thread(check_object, object_id, content)
        else:
            check_object(object_id, content)
        if view is None:
            return None
        if not view.waits_for(object_id):
            # The object is stored, but its message may not be released: a first try may have ended
            # in between.
            await self._push_sessions.arrived(view, object_id)
        elif len(content) <= SMALL:
            await self._take_in(view, object_id, content)
        else:
            await self._take_in_once(view, object_id, content)
        return True

    async def _take_in_once(self, view: PushSession, object_id: str, content: memoryview) -> None:
        """Store an object completely, even if its caller gives up before.

        Otherwise the caller would send the object again, and a store that is slower than the
        caller's time-out would never end.
        """
        key = (view.session_id, object_id)
        taking = self._taking.get(key)
        if taking is None:
            taking = asyncio.ensure_future(self._take_in(view, object_id, content))
            self._taking[key] = taking
            taking.add_done_callback(partial(self._taken, key))
        await asyncio.shield(taking)

    def _taken(self, key: tuple[str, str], taking: asyncio.Future[None]) -> None:
        del self._taking[key]
        if not taking.cancelled() and taking.exception() is not None:
            log.info("object_not_stored", object_id=key[1], reason=repr(taking.exception()))

    async def _take_in(self, view: PushSession, object_id: str, content: memoryview) -> None:
        run_id, size = view.run_id, len(content)
        await self._stored_bytes.add(run_id, view.session_id, view.sender, size)
        await self._objects.store(run_id, object_id, content)
        if not view.brings_instructions:
            self._notes.traffic(run_id, view.answers, received=size)
            self._metrics.note(view, content)
        many_read_it = view.sender == SUPERLINK_NODE_ID and size <= LARGE
        if many_read_it or size <= SMALL:
            self._cache.put((run_id, object_id), write_pull_object_response([content]))
        await self._push_sessions.arrived(view, object_id)

    async def session_of(
        self, request: common.PushObjectRequest, *, sender: int
    ) -> PushSession | None:
        """Return the push session of a pushed object, None if its sender has no such session."""
        if request.session_id:
            view = await self._push_sessions.find(request.run_id, request.session_id)
        else:
            view = await self._push_sessions.waiting_for(request.run_id, request.object_id, sender)
        return view if view is not None and view.sender == sender else None

    async def is_stored(self, run_id: int, object_id: str) -> bool:
        """Return whether an object is stored."""
        return is_object_id(object_id) and await self._objects.exists(run_id, object_id)

    async def pull(self, run_id: int, object_id: str, *, broadcast: bool) -> Answer:
        """Return the serialized PullObjectResponse for an object.

        `broadcast` says that others will read it too.

        For an announced object that has not arrived, this waits up to `HOLD` seconds.
        """
        if not is_object_id(object_id):
            return NOT_FOUND
        with self._wakes.on(subjects.wake_object(run_id, object_id)) as wait:
            deadline = time.monotonic() + HOLD
            while True:
                # The hints are taken before the look, so that a hint during the look counts.
                wait.take()
                found = await self._read((run_id, object_id), broadcast)
                if found is not None:
                    return found
                if not await self._push_sessions.announced(run_id, object_id):
                    return NOT_FOUND
                left = deadline - time.monotonic()
                if self._drain.begun or left <= 0 or not await wait.wait(left):
                    return _NOT_AVAILABLE

    async def _read(self, key: tuple[int, str], broadcast: bool) -> Answer | None:
        cached = self._cache.get(key)
        if cached is not None:
            return cached
        reading = self._reading.get(key)
        if reading is None:
            reading = asyncio.ensure_future(self._fetch(key, broadcast))
            self._reading[key] = reading
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        # Others may wait for the same read, so a cancelled caller must not end it.
        return await asyncio.shield(reading)

    async def _fetch(self, key: tuple[int, str], broadcast: bool) -> Answer | None:
        async with self._reads:
            found = await self._objects.find(*key)
            if found is None:
                return None
            if found.size > LARGE:
                return LargeAnswer(found)
            pieces = await found.pieces()
        response = write_pull_object_response(pieces)
        if broadcast or len(response) <= SMALL:
            self._cache.put(key, response)
        return response

    def forget_run(self, run_id: int) -> None:
        """Forget the objects of a run whose status has changed."""
        self._cache.drop_run(run_id)


NOT_FOUND = common.PullObjectResponse().SerializeToString()
"""The answer if there is no such object."""

_NOT_AVAILABLE = common.PullObjectResponse(object_found=True).SerializeToString()
