"""The history of exchanges: this stores the notes of gateways and the housekeeping."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from flower_nats.broker.exchange_notes import ExchangeNotes, with_ages
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import Unavailable
from flower_nats.model.exchange import ExchangeNote
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.exchanges import Exchanges
from flower_nats.store.idempotency import once
from flower_nats.superlink.codecs import InternalHandler

log = get_logger(__name__)

Map = Mapping[str, Any]


class ExchangeHistory:
    """Stores notes of exchanges."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return {"Exchanges": self.exchanges}

    async def exchanges(self, question: Map, caller: Caller) -> Map:
        """{notes: [[field of `ExchangeNote`, …], …]} -> {}: adds them."""
        # A newer gateway may send more fields of an exchange than we know.
        fields = len(ExchangeNote.__dataclass_fields__)
        notes = [ExchangeNote(*entry[:fields]) for entry in question["notes"]]

        async def add(transaction: Transaction) -> bytes:
            await Exchanges(transaction).add(notes)
            return b""

        if notes:
            await once(self._database, caller.request_id, add)
        return {}

    def noting(
        self, notes: ExchangeNotes, work: Callable[[], Awaitable[None]]
    ) -> Callable[[], Awaitable[None]]:
        """Return housekeeping that stores its notes after its work."""

        async def work_and_note() -> None:
            try:
                await work()
            finally:
                await self._store(notes)

        return work_and_note

    async def _store(self, notes: ExchangeNotes) -> None:
        taken = notes.take()
        if not taken:
            return
        try:
            await Exchanges(self._database).add(with_ages(taken))
        except Unavailable as exc:
            log.warning("exchanges_not_recorded", count=len(taken), reason=exc.detail)
