"""URLs of NATS servers: their form, and the login in them."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from flower_nats.broker.nkeys import user_key
from flower_nats.model.addresses import check_host


def check_url(url: str) -> None:
    """Raise ValueError if `url` cannot be that of a NATS server; the text never holds the URL.

    A URL has the scheme nats or tls, or is a host with an optional port and no login.
    """
    scheme, separator, _ = url.rpartition("://")
    if separator and scheme not in {"nats", "tls"}:
        raise ValueError("the scheme is nats or tls")
    if not separator and "@" in url:
        raise ValueError("with a login it has a scheme")
    try:
        parts = urlsplit(without_login(url if separator else f"nats://{url}"))
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        # The error's text has the wrong port, which may be a password.
        raise ValueError("its host or port cannot be read") from exc
    if not host or any(letter.isspace() for letter in parts.netloc):
        raise ValueError("it has no host")
    check_host(host)
    if port == 0:
        raise ValueError("the port is from 1 to 65535")


def login(urls: Sequence[str]) -> dict[str, Any]:
    """Return the login in the URLs as the driver's options.

    A login in a URL would be for that server only, not for servers that the cluster announces. A
    seed in place of the password is not sent (`nkeys`).
    """
    for url in map(urlsplit, urls):
        if url.username is not None and url.password is not None:
            password = unquote(url.password)
            if user_key(password) is not None:
                return {"nkeys_seed_str": password}
            return {"user": unquote(url.username), "password": password}
        if url.username is not None:
            return {"token": unquote(url.username)}
    return {}


def user_of(urls: Sequence[str]) -> str:
    """Return the user that the URLs name; empty where they name none."""
    users = [unquote(url.username or "") for url in map(urlsplit, urls) if url.password is not None]
    return users[0] if users else ""


def without_login(url: str) -> str:
    """Return the URL without user, password and token."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
