"""Webhooks: the message about an event, its signature, and its address.

Headers and signature are those of Standard Webhooks (standardwebhooks.com), so that receivers can verify
them with its libraries, or with five lines of their own.
"""

import base64
import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from flower_nats.model.addresses import check_host

_PREFIX = "whsec_"

_SECRET_BYTES = 32

LONGEST_URL = 2_000
"""Characters of an address."""

MOST_WEBHOOKS = 50
"""Webhooks of a runtime. Each event is compared with all of them."""

# Besides link-local addresses such as 169.254.169.254, where clouds give machines their
# credentials.
_METADATA = frozenset(
    map(ipaddress.ip_address, ("100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"))
)

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class BadWebhook(ValueError):
    """It cannot be, for a reason that is told to who has asked for it."""


@dataclass(frozen=True)
class Webhook:
    """A receiver of events, and the kinds that it gets."""

    webhook_id: int
    url: str
    kinds: list[str]
    federation: str | None
    """The federation; None for all, and for the runtime as a whole."""
    created_at: datetime
    created_by: str
    delivered_at: datetime | None
    """When an event was last delivered."""
    waiting: int
    """Events that are not yet delivered."""


def new_secret() -> str:
    """Return a secret that signs deliveries."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signature_headers(secret: str, message_id: str, moment: int, body: bytes) -> dict[str, str]:
    """Return the signature headers: HMAC-SHA256 over id, timestamp (Unix seconds) and body."""
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    signed = f"{message_id}.{moment}.".encode() + body
    digest = hmac.new(key, signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(moment),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def check_url(url: str) -> str:
    """Check and return an address. Raises `BadWebhook`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as exc:
        raise BadWebhook(f"The address cannot be read: {exc}.") from exc
    if parts.scheme not in ("https", "http") or not host:
        raise BadWebhook("An address begins with https:// or http://, and names a host.")
    try:
        check_host(host)
    except ValueError as exc:
        raise BadWebhook(f"The address names no host: {exc}.") from exc
    if parts.username or parts.password or parts.fragment:
        raise BadWebhook(
            "An address must have no user, password or fragment. Receivers verify the signature "
            "instead."
        )
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise BadWebhook(f"An address has at most {LONGEST_URL} characters, all ASCII.")
    return url


def origin_of(url: str) -> str:
    """Return an address for display, without its path, which may hold a secret."""
    parts = urlsplit(url)
    path = "/…" if parts.path not in ("", "/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{path}"


def refusal_of(address: str, *, loopback: bool) -> str | None:
    """Return why an IP address is refused, None if it is allowed.

    `loopback` says whether this machine is allowed. Addresses of private networks are allowed,
    because receivers of hospitals are there.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = ipaddress.IPv4Address(int(found) & 0xFFFF_FFFF)
    if found in _METADATA or found.is_link_local or found.is_multicast or found.is_unspecified:
        return (
            f"{address} cannot be a receiver: it is a link-local, multicast or cloud-metadata "
            "address"
        )
    if found.is_loopback and not loopback:
        return (
            f"{address} is the machine of the superlink itself: with accounts, webhooks may not "
            "use it"
        )
    return None
