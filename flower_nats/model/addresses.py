"""Network addresses as people write them: `host:port`, an IPv6 host in brackets."""

import socket
from contextlib import suppress
from ipaddress import ip_address

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


_LONGEST_HOST = 253
"""Characters of a host's name in DNS."""


def check_host(host: str) -> None:
    """Raise ValueError for the name of a host that nobody can look up; its text has no name in it.

    Python's look-up raises UnicodeError for such names, where most callers expect an OSError.
    """
    try:
        if len(host) > _LONGEST_HOST or "\0" in host:
            raise UnicodeError
        host.encode("idna")
    except UnicodeError as exc:
        raise ValueError(
            "each part of a host's name, between dots, has from 1 to 63 characters, and the name "
            f"has at most {_LONGEST_HOST}"
        ) from exc


def split_address(address: str) -> tuple[str, int]:
    """Return host (without brackets) and port; raises ValueError."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    numeric = port.isascii() and port.isdecimal()
    if not colon or not bare or not numeric or int(port) > 65535 or (":" in host and bare == host):
        raise ValueError(f"{address!r} is not an address such as 127.0.0.1:9092.")
    try:
        check_host(bare)
    except ValueError as exc:
        raise ValueError(f"{address!r} is not an address: {exc}.") from exc
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(address: str) -> str:
    """Return the address at which this machine reaches a server that listens on `address`."""
    host, port = split_address(address)
    return join_address({EVERYWHERE: LOOPBACK, "::": "::1"}.get(host, host), port)


def is_loopback(address: str) -> bool:
    """Whether `address` shows that the server is on this machine."""
    host, _ = split_address(reachable(address))
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def is_of_loopback(address: str) -> bool:
    """Whether only this machine reaches a server that listens on `address`."""
    return not is_everywhere(address) and is_loopback(address)


def is_everywhere(address: str) -> bool:
    """Whether a server that listens on `address` does so on every interface."""
    host, _ = split_address(address)
    return host in (EVERYWHERE, "::")


def address_of_this_machine() -> str:
    """Return the address at which other machines most likely reach this one.

    It is the address from which this machine calls others. Behind NAT, or in a container, others
    cannot use it.
    """
    # No packet is sent: the system only looks up the route (192.0.2.1 is reserved).
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()
