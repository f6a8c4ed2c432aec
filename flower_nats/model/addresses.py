"""Network addresses as people write them: `host:port`, an IPv6 host in brackets."""

from contextlib import suppress
from ipaddress import ip_address

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


def split_address(address: str) -> tuple[str, int]:
    """Return host (without brackets) and port; raises ValueError."""
    host, colon, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    numeric = port.isascii() and port.isdecimal()
    if not colon or not bare or not numeric or int(port) > 65535 or (":" in host and bare == host):
        raise ValueError(f"{address!r} is not an address such as 127.0.0.1:9092.")
    return bare, int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reachable(address: str) -> str:
    """Return the address at which this machine reaches a server that listens on `address`."""
    host, port = split_address(address)
    return join_address({EVERYWHERE: LOOPBACK, "::": "::1"}.get(host, host), port)


def is_loopback(address: str) -> bool:
    """Whether a server that is reached at `address` is on this machine, as far as that tells."""
    host, _ = split_address(reachable(address))
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def is_of_loopback(address: str) -> bool:
    """Whether a server that listens on `address` is reached by this machine alone."""
    host, _ = split_address(address)
    return host not in (EVERYWHERE, "::") and is_loopback(address)
