"""Requests that are carried out once, even if a gateway repeats them."""

from collections.abc import Awaitable, Callable

from flower_nats.model.caller import ASKED_FOR
from flower_nats.store.audit import ATTEMPT, append
from flower_nats.store.connection import ATTEMPT_SECONDS, Database, Session, Transaction
from flower_nats.store.queries import load

_SQL = load("answers")

_KEEP_SECONDS = ASKED_FOR + 300
"""Seconds: longer than any gateway repeats a request."""


async def once(
    database: Database,
    request_id: str,
    work: Callable[[Transaction], Awaitable[bytes]],
    timeout: float = ATTEMPT_SECONDS,
) -> bytes:
    """Run `work` in a transaction; return its answer, or the earlier answer to this request.

    A request without an id is always carried out. If the call becomes an event of the audit trail,
    the same transaction adds it. `timeout` bounds one attempt, in seconds.
    """

    async def attempt(transaction: Transaction) -> bytes:
        if not request_id:
            response = await work(transaction)
            await _record(transaction)
            return response
        # This waits for another replica that is carrying out the same request.
        if await transaction.fetch_one(_SQL["open"], request_id=request_id) is None:
            answered = await transaction.fetch_one(_SQL["get"], request_id=request_id)
            return bytes(answered["response"]) if answered else b""
        response = await work(transaction)
        await transaction.execute(_SQL["close"], request_id=request_id, response=response)
        await _record(transaction)
        return response

    return await database.transaction(attempt, timeout)


async def _record(transaction: Transaction) -> None:
    attempt = ATTEMPT.get()
    if attempt is not None:
        attempt.recorded = await append(transaction, attempt.event)


async def was_answered(session: Session, request_id: str) -> bool:
    """Return whether a request was carried out before."""
    if not request_id:
        return False
    return await session.fetch_one(_SQL["get"], request_id=request_id) is not None


async def drop_old_answers(session: Session) -> int:
    """Remove answers that no gateway can ask for again; return how many."""
    return await session.execute(_SQL["drop_old"], seconds=_KEEP_SECONDS)
