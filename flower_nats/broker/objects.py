"""Objects in JetStream: content-addressed, once per run, in chunks of plain messages."""

from collections.abc import AsyncGenerator, Iterable
from functools import partial

from flower_nats.broker import chunks, subjects
from flower_nats.broker.connection import Connection, Record

_STREAM = subjects.OBJECTS_STREAM

_SIZE = "Fn-Size"
_CHUNKS = "Fn-Chunks"


class Objects:
    """The objects of all runs."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(self, run_id: int, object_id: str, content: bytes, session_id: str = "") -> None:
        """Store an object, and tell those who wait for it."""
        await self.store(run_id, object_id, content)
        await self.announce(run_id, object_id, session_id)

    async def announce(
        self, run_id: int, object_id: str, session_id: str, claims: Iterable[int] = ()
    ) -> None:
        """Tell those who wait for an object that it has arrived.

        `claims` are the numbers of the messages of its push session that the caller will now
        release.
        """
        subject = subjects.wake_object(run_id, object_id)
        await self._connection.hint(subject, _numbers(session_id, claims))

    async def announce_out(self, run_id: int, session_id: str, numbers: Iterable[int]) -> None:
        """Tell other gateways which messages of a push session are released; none means all."""
        await self._connection.hint(subjects.wake_session(run_id), _numbers(session_id, numbers))

    async def store(self, run_id: int, object_id: str, content: bytes | memoryview) -> None:
        """Store an object; storing it again changes nothing."""
        pieces = chunks.cut(self._connection, content)
        inline = len(pieces) <= 1
        if not inline:
            subject_of = partial(subjects.object_chunk, run_id, object_id)
            await chunks.store(self._connection, subject_of, pieces)
        # The head comes last: after a crash before it, the object does not exist.
        await self._connection.store(
            subjects.object_head(run_id, object_id),
            content if inline else b"",
            headers={_SIZE: str(len(content)), _CHUNKS: "0" if inline else str(len(pieces))},
        )

    async def get(self, run_id: int, object_id: str) -> bytes | None:
        """Return an object's content, or None if the object is not complete."""
        pieces = await self.pieces(run_id, object_id)
        return None if pieces is None else b"".join(pieces)

    async def pieces(self, run_id: int, object_id: str) -> list[bytes] | None:
        """Return an object's content in pieces, or None if the object is not complete."""
        found = await self.find(run_id, object_id)
        return None if found is None else await found.pieces()

    async def find(self, run_id: int, object_id: str) -> "StoredObject | None":
        """Return an object before its content is read, or None if the object is not complete."""
        subject = subjects.object_head(run_id, object_id)
        head = await self._connection.fetch(_STREAM, subject)
        if head is None:
            # A follower may lag behind the leader.
            head = await self._connection.last(_STREAM, subject)
        if head is None:
            return None
        return StoredObject(self._connection, run_id, object_id, head)

    async def exists(self, run_id: int, object_id: str) -> bool:
        """Return whether an object exists and is complete."""
        subject = subjects.object_head(run_id, object_id)
        return bool(await self._connection.subjects(_STREAM, subject))

    async def stored_since(self, run_id: int, object_id: str, moment: str) -> bool:
        """Return whether an object was completed at or after a moment (RFC 3339)."""
        subject = subjects.object_head(run_id, object_id)
        return await self._connection.first_since(_STREAM, subject, moment) is not None

    async def runs(self) -> set[int]:
        """Return the runs that have objects, or chunks of incomplete ones."""
        found = await self._connection.subjects(_STREAM, subjects.OBJECTS_SUBJECTS)
        return {int(subject.split(".")[2]) for subject in found}

    async def horizon(self, moment: str) -> int:
        """Return a position before everything stored from now on, or since a moment (RFC 3339)."""
        info = await self._connection.info(_STREAM)
        end = int(info["state"]["last_seq"]) + 1
        first = await self._connection.first_since(_STREAM, subjects.OBJECTS_SUBJECTS, moment)
        return min(first.sequence, end) if first else end

    async def collect_all(self, run_id: int, horizon: int) -> int:
        """Drop every object of a run before `horizon`; return how many messages were removed."""
        return await self._connection.purge(_STREAM, subjects.objects(run_id), horizon)

    async def collect_before(self, run_id: int, moment: str, horizon: int) -> int:
        """Drop objects that a run stored before a moment (RFC 3339) and before `horizon`."""
        first = await self._connection.first_since(_STREAM, subjects.objects(run_id), moment)
        up_to = min(first.sequence, horizon) if first else horizon
        return await self._connection.purge(_STREAM, subjects.objects(run_id), up_to)

    async def collect_one(self, run_id: int, object_id: str, horizon: int) -> int:
        """Drop one object if it was stored before `horizon`."""
        return await self._connection.purge(
            _STREAM, subjects.whole_object(run_id, object_id), horizon
        )

    async def ids(self, run_id: int) -> set[str]:
        """Return the ids of all objects of a run."""
        heads = await self._connection.subjects(_STREAM, subjects.object_head(run_id, subjects.ANY))
        return {subject.split(".")[3] for subject in heads}


class StoredObject:
    """An object in the broker."""

    def __init__(self, connection: Connection, run_id: int, object_id: str, head: Record) -> None:
        self._connection = connection
        self._subject_of = partial(subjects.object_chunk, run_id, object_id)
        self._head = head
        self._chunks = int(head.headers[_CHUNKS])
        self.size = int(head.headers[_SIZE])
        """Bytes of its content."""

    async def pieces(self) -> list[bytes]:
        """Return its content. Raises `Unavailable`."""
        if self._chunks == 0:
            return [self._head.data]
        return await chunks.fetch(self._connection, _STREAM, self._subject_of, self._chunks)

    def stream(self) -> AsyncGenerator[bytes, None]:
        """Yield its content, which has chunks, piece by piece. Raises `Unavailable`."""
        return chunks.stream(self._connection, _STREAM, self._subject_of, self._chunks)


def read_numbers(payload: bytes) -> tuple[str, list[int]]:
    """Read the payload of a hint about a push session: its id, and numbers of messages in it."""
    session_id, _, numbers = payload.decode("ascii", "replace").partition(" ")
    return session_id, [int(number) for number in numbers.split(",") if number]


def _numbers(session_id: str, numbers: Iterable[int]) -> bytes:
    return f"{session_id} {','.join(map(str, numbers))}".encode()
