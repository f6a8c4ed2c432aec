"""The management of webhooks by operators, on a page of the console and by `flower-nats
webhook`."""

from collections.abc import Mapping
from typing import Any

import msgpack

from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.event import kinds_of
from flower_nats.model.visible import visible_name
from flower_nats.model.webhook import (
    MOST_WEBHOOKS,
    BadWebhook,
    Webhook,
    check_url,
    new_secret,
    origin_of,
)
from flower_nats.store.audit import note_object
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.federations import Federations
from flower_nats.store.idempotency import once
from flower_nats.store.webhooks import Trouble, Webhooks
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.convert import iso, now_iso

log = get_logger(__name__)

Map = Mapping[str, Any]

_MOST_TROUBLES = 100
"""Events in the list of failed deliveries."""


class WebhookAdmin:
    """Serves the management of webhooks. The caller is known to be an operator."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._webhooks = Webhooks(database)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC served here."""
        return {
            "Webhooks": self.webhooks,
            "AddWebhook": self.add,
            "RemoveWebhook": self.remove,
            "TestWebhook": self.test,
        }

    async def webhooks(self, question: Map, caller: Caller) -> Map:
        """{} -> {now, webhooks, troubles, federations}: no secrets, and only hosts of addresses."""
        troubles = await self._webhooks.troubled(_MOST_TROUBLES)
        return {
            "now": now_iso(),
            "webhooks": [_webhook(one) for one in await self._webhooks.all()],
            "troubles": [_trouble(one) for one in troubles],
            "federations": [one.name for one in await Federations(self._database).of(None)],
        }

    async def add(self, question: Map, caller: Caller) -> Map:
        """{url, kinds, federation} -> {webhook_id, secret}: the secret is shown only once.

        `kinds` are names of kinds or groups. Raises `ApiError` (MALFORMED_REQUEST).
        """
        federation = str(question["federation"] or "")
        kinds = kinds_of(question["kinds"])
        try:
            url = check_url(str(question["url"]).strip())
        except BadWebhook as exc:
            raise _refused(str(exc)) from exc
        if not kinds:
            raise _refused("A webhook needs at least one kind of events. Remedy: name one.")

        async def keep(transaction: Transaction) -> bytes:
            await _check_federation(transaction, federation)
            webhooks = Webhooks(transaction)
            if await webhooks.lock() >= MOST_WEBHOOKS:
                raise _refused(f"There are {MOST_WEBHOOKS} webhooks. Remedy: remove one first.")
            secret = new_secret()
            webhook_id = await webhooks.add(
                url, secret, kinds, federation or None, caller.account_name
            )
            note_object(f"webhook {webhook_id}")
            return bytes(msgpack.packb({"webhook_id": str(webhook_id), "secret": secret}))

        added: Map = msgpack.unpackb(await once(self._database, caller.request_id, keep))
        log.info("webhook_added", webhook_id=added["webhook_id"], host=origin_of(url))
        return added

    async def remove(self, question: Map, caller: Caller) -> Map:
        """{webhook_id} -> {}. Raises `ApiError` (MALFORMED_REQUEST) if there is none."""
        webhook_id = _id(question)

        async def drop(transaction: Transaction) -> bytes:
            if not await Webhooks(transaction).remove(webhook_id):
                raise _gone(webhook_id)
            return b""

        await once(self._database, caller.request_id, drop)
        log.info("webhook_removed", webhook_id=webhook_id)
        return {}

    async def test(self, question: Map, caller: Caller) -> Map:
        """{webhook_id} -> {}: an event for this webhook alone, sent as usual."""
        webhook_id = _id(question)

        async def make(transaction: Transaction) -> bytes:
            text = f"A test, requested by {caller.account_name}."
            if not await Webhooks(transaction).test(webhook_id, text):
                raise _gone(webhook_id)
            return b""

        await once(self._database, caller.request_id, make)
        return {}


async def _check_federation(transaction: Transaction, name: str) -> None:
    if name and await Federations(transaction).get(name) is None:
        raise _refused(f"There is no federation {name}.")


def _id(question: Map) -> int:
    webhook_id = int(question["webhook_id"])
    if not 0 < webhook_id < 2**63:
        raise _gone(webhook_id)
    return webhook_id


def _refused(text: str) -> ApiError:
    return ApiError(ErrorCode.MALFORMED_REQUEST, text, text)


def _gone(webhook_id: int) -> ApiError:
    return _refused(
        f"There is no webhook {webhook_id}. Remedy: `flower-nats webhook list` shows all webhooks."
    )


def _webhook(one: Webhook) -> Map:
    return {
        "webhook_id": str(one.webhook_id),
        "url": origin_of(one.url),
        "kinds": sorted(one.kinds),
        "federation": one.federation or "",
        "created_at": iso(one.created_at),
        "created_by": visible_name(one.created_by),
        "delivered_at": iso(one.delivered_at),
        "waiting": one.waiting,
    }


def _trouble(one: Trouble) -> Map:
    return {
        "webhook_id": str(one.webhook_id),
        "url": origin_of(one.url),
        "tries": one.tries,
        "next_at": iso(one.next_at),
        "error": visible_name(one.error),
        "event": visible_name(one.event.text),
        "at": iso(one.event.at),
        "run_id": "" if one.event.run_id is None else str(one.event.run_id),
    }
