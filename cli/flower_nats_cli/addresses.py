"""Network addresses as people write them: `host:port`, an IPv6 host in brackets."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from ipaddress import ip_address
from itertools import combinations

import click

from flower_nats.embedded.ports import free_ports, reserve
from flower_nats.model.errors import FlowerNatsError

LOOPBACK = "127.0.0.1"
EVERYWHERE = "0.0.0.0"


class AddressInUseError(FlowerNatsError):
    """Another process listens on an address that is needed."""


def address_argument(value: str) -> str:
    """Take a `host:port` from the command line; raises BadParameter if it is none."""
    try:
        split_address(value)
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc
    return value


def api_address_argument(value: str) -> str:
    """Take a `host:port`, or `none`, from the command line; return "" for none.

    Raises BadParameter if it is neither.
    """
    return "" if value == "none" else address_argument(value)


def loopback_argument(value: str) -> str:
    """Take a `host:port` of this machine alone; raises BadParameter if it is none."""
    if not is_of_loopback(address_argument(value)):
        raise click.BadParameter(f"{value} is not an address of this machine alone.")
    return value


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


def addresses_from(first: str, count: int) -> list[str]:
    """Return `count` addresses on consecutive ports; with port 0 each has port 0.

    Raises ValueError if there are not so many ports.
    """
    host, port = split_address(first)
    last = 65535 - count + 1
    if port > last:
        raise ValueError(
            f"{count} ports are needed from that on: the last to begin with is {last}."
        )
    return [join_address(host, port + number if port else 0) for number in range(count)]


def claim_addresses(addresses: Iterable[str]) -> list[str]:
    """Return `addresses`, with free ports in place of port 0, once nobody listens on any.

    Asked before gateways bind them, because they share their ports with whoever shares too: without
    this another program on the port would silently get a part of the connections.
    Raises AddressInUseError.
    """
    wanted = [split_address(address) for address in addresses]
    reserve(port for _, port in wanted)
    free = iter(free_ports(sum(port == 0 for _, port in wanted)))
    return [_claim(host, port or next(free)) for host, port in wanted]


def _claim(host: str, port: int) -> str:
    address = join_address(host, port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, to pass over connections of a former server that are still closing.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            raise AddressInUseError(f"Cannot listen on {address}: {exc.strerror}.") from exc
    return address


def check_distinct(addresses: Mapping[str, str | None]) -> None:
    """Raise UsageError if two servers of a process were to listen on one port.

    The system would let them, and give each of them a part of the connections. `addresses` are by
    the options that say them.
    """
    given = [(option, split_address(address)) for option, address in addresses.items() if address]
    for (one, (host, port)), (other, (other_host, other_port)) in combinations(given, 2):
        shared = host == other_host or {host, other_host} & {EVERYWHERE, "::"}
        if port == other_port != 0 and shared:
            raise click.UsageError(f"{one} and {other} have the same port, {port}.")


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


def accepts_connections(address: str) -> bool:
    """Whether a server listens on `address` of this machine."""
    with suppress(OSError), socket.create_connection(split_address(reachable(address)), timeout=1):
        return True
    return False
