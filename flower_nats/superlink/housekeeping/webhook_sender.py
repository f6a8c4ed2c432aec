"""Sends events to webhooks: one superlink at a time, each event until it arrives, for a day."""

import asyncio
import json
import socket
import ssl
import time
from typing import Any
from urllib.parse import urlsplit

import httpx

from flower_nats.logs import get_logger
from flower_nats.model.event import Event
from flower_nats.model.visible import visible_name
from flower_nats.model.webhook import origin_of, refusal_of, signature_headers
from flower_nats.store.connection import Database
from flower_nats.store.webhooks import Delivery, Webhooks
from flower_nats.superlink.convert import iso

log = get_logger(__name__)

SEND_EVERY = 2.0
"""Seconds between two looks for deliveries."""

_TRY_SECONDS = 5.0
"""Seconds for one try, from looking up the name to the answer: half of the lease of housekeeping."""


class NotDelivered(Exception):
    """A delivery failed, for a reason that operators read."""


class WebhookSender:
    """Sends, pass by pass."""

    def __init__(self, database: Database, *, loopback: bool) -> None:
        """`loopback`: whether receivers may be on this machine."""
        self._webhooks = Webhooks(database)
        self._loopback = loopback
        self._context: ssl.SSLContext | None = None

    async def send(self) -> None:
        """Make one pass. Raises `Unavailable` if the database is out of reach."""
        claimed = await self._webhooks.claim()
        if claimed:
            await asyncio.gather(*map(self._try, claimed))

    async def _try(self, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                await self._post(delivery)
        except TimeoutError:
            await self._failed(delivery, f"no answer within {_TRY_SECONDS:.0f} s")
        except NotDelivered as exc:
            await self._failed(delivery, str(exc))
        except Exception as exc:
            # Of any kind: one address must not keep events from the others.
            await self._failed(delivery, f"{type(exc).__name__}: {exc}"[:300])
        else:
            await self._webhooks.delivered(delivery.webhook_id, delivery.event.event_id)

    async def _failed(self, delivery: Delivery, reason: str) -> None:
        where, event_id = origin_of(delivery.url), delivery.event.event_id
        log.warning("webhook_failed", webhook=where, event_id=event_id, reason=reason)
        await self._webhooks.failed(delivery.webhook_id, event_id, reason)

    async def _post(self, delivery: Delivery) -> None:
        parts = urlsplit(delivery.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(host, port)
        body = json.dumps(body_of(delivery.event), ensure_ascii=False).encode()
        message_id = f"event_{delivery.event.event_id}"
        headers = {
            "host": parts.netloc,
            "content-type": "application/json",
            "user-agent": "flower-nats",
            **signature_headers(delivery.secret, message_id, int(time.time()), body),
        }
        # The connection uses the address that was checked: the name may resolve differently later.
        at = f"[{address}]" if ":" in address else address
        target = parts._replace(netloc=f"{at}:{port}").geturl()
        async with httpx.AsyncClient(
            timeout=_TRY_SECONDS,
            verify=self._trust(),
            follow_redirects=False,
            trust_env=False,
        ) as client:
            request = client.build_request(
                "POST", target, content=body, headers=headers, extensions={"sni_hostname": host}
            )
            # The rest of the receiver's answer, after the status, is not read.
            answer = await client.send(request, stream=True)
            await answer.aclose()
        if answer.is_redirect:
            raise NotDelivered(f"it answers {answer.status_code}: redirects are not followed")
        if not answer.is_success:
            raise NotDelivered(f"it answers {answer.status_code}")

    async def _address(self, host: str, port: int) -> str:
        """Return an address of a host. Raises `NotDelivered` if one of its addresses is refused."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(one[4][0]) for one in found]
        for address in addresses:
            if reason := refusal_of(address, loopback=self._loopback):
                raise NotDelivered(reason)
        return addresses[0]

    def _trust(self) -> ssl.SSLContext:
        # Created once, when needed: reading all authorities takes some ten milliseconds.
        if self._context is None:
            self._context = ssl.create_default_context()
        return self._context


def body_of(event: Event) -> dict[str, Any]:
    """Return the body of a delivery. Chats that take `text` show it unchanged."""
    return {
        "text": visible_name(event.text),
        "event_id": str(event.event_id),
        "at": iso(event.at),
        "kind": event.kind,
        "tone": str(event.what.tone),
        "name": visible_name(event.name),
        "details": visible_name(event.details),
        "federation": event.federation or "",
        "run_id": "" if event.run_id is None else str(event.run_id),
        "node_id": "" if event.node_id is None else str(event.node_id),
    }
