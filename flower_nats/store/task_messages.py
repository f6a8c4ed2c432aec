"""Messages between the tasks of a run, in the database (those to nodes live in the broker)."""

from dataclasses import dataclass

from flower_nats.store.connection import Session
from flower_nats.store.queries import load

_SQL = load("messages")


@dataclass(frozen=True)
class TaskMessage:
    """A message from one task to another of the same run."""

    message_id: str
    run_id: int
    src_task_id: int
    dst_task_id: int
    created_at: float
    """Seconds since 1970, by the sender's clock."""
    expires_at: float
    body: bytes
    """A `Message` of the wire."""


class TaskMessages:
    """Messages that wait for a task."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def put(self, message: TaskMessage) -> bool:
        """Store a message; False if the id is taken by another or the tasks are not of one run."""
        row = await self._session.fetch_one(_SQL["put"], **vars(message))
        return row is not None

    async def take(
        self, task_id: int, limit: int | None, src_task_id: int | None = None
    ) -> list[bytes]:
        """Remove and return at most `limit` messages that wait for a task, oldest first.

        `src_task_id`: only messages from that task.
        """
        rows = await self._session.fetch_all(
            _SQL["take"], task_id=task_id, limit=limit, src_task_id=src_task_id
        )
        return [bytes(row["body"]) for row in rows]

    async def drop_expired(self) -> int:
        """Remove expired messages, and those of finished tasks; return how many."""
        return await self._session.execute(_SQL["drop_expired"])
