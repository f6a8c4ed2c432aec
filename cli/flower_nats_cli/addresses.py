"""Network addresses as people write them: `host:port`, an IPv6 host in brackets."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import combinations

import click

from flower_nats.embedded.ports import free_ports, reserve
from flower_nats.model.addresses import (
    EVERYWHERE,
    LOOPBACK,
    is_loopback,
    is_of_loopback,
    join_address,
    reachable,
    split_address,
)
from flower_nats.model.errors import FlowerNatsError
from flower_nats_cli.listeners import listener_on

__all__ = [
    "EVERYWHERE",
    "LOOPBACK",
    "AddressInUseError",
    "accepts_connections",
    "address_argument",
    "addresses_from",
    "api_address_argument",
    "check_distinct",
    "claim_addresses",
    "is_loopback",
    "is_of_loopback",
    "join_address",
    "loopback_argument",
    "reachable",
    "split_address",
]


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
        raise click.BadParameter(f"{value} is not a loopback address: use one such as 127.0.0.1.")
    return value


def addresses_from(first: str, count: int) -> list[str]:
    """Return `count` addresses on consecutive ports; with port 0 each has port 0.

    Raises ValueError if there are not so many ports.
    """
    host, port = split_address(first)
    last = 65535 - count + 1
    if port > last:
        raise ValueError(
            f"{count} consecutive ports are needed, so the first can be {last} at most."
        )
    return [join_address(host, port + number if port else 0) for number in range(count)]


def claim_addresses(addresses: Iterable[tuple[str, str]]) -> list[str]:
    """Return the addresses, with free ports in place of port 0, after a check that all are free.

    Each address is given with the option that changes it, "" for none. Gateways share their ports
    with any program that shares too. Without this check, such a program would silently get a part
    of the connections. Raises AddressInUseError.
    """
    wanted = [(option, *split_address(address)) for option, address in addresses]
    reserve(port for _, _, port in wanted)
    free = iter(free_ports(sum(port == 0 for _, _, port in wanted)))
    return [_claim(option, host, port or next(free)) for option, host, port in wanted]


def _claim(option: str, host: str, port: int) -> str:
    address = join_address(host, port)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Servers do the same: connections of a former server that still close must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            listener = listener_on(port)
            by = f" by {listener[1]} (pid {listener[0]})" if listener else ""
            other = f", or choose another address with {option}" if option else ""
            raise AddressInUseError(
                f"Cannot listen on {address}: {exc.strerror}{by}. Remedy: end the program "
                f"that listens there{other}."
            ) from exc
    return address


def check_distinct(addresses: Mapping[str, str | None]) -> None:
    """Raise UsageError if two servers of a process would listen on one port.

    The system would allow that, and give each server a part of the connections. The keys of
    `addresses` are the options that set them.
    """
    given = [(option, split_address(address)) for option, address in addresses.items() if address]
    for (one, (host, port)), (other, (other_host, other_port)) in combinations(given, 2):
        shared = host == other_host or {host, other_host} & {EVERYWHERE, "::"}
        if port == other_port != 0 and shared:
            raise click.UsageError(f"{one} and {other} have the same port, {port}.")


def accepts_connections(address: str) -> bool:
    """Whether a server listens on `address` of this machine."""
    with suppress(OSError), socket.create_connection(split_address(reachable(address)), timeout=1):
        return True
    return False
