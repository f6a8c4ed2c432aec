"""Logins of an embedded NATS server."""

from urllib.parse import urlsplit

from flower_nats.broker.permissions import User
from flower_nats.embedded.nats_server import password_of


def as_user(owner_url: str, user: User) -> str:
    """Return the URL for another user, derived from the owner's URL."""
    parts = urlsplit(owner_url)
    password = password_of(user, parts.password or "")
    return parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}").geturl()
