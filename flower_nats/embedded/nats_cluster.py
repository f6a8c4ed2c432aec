"""Three nats-servers in one cluster on one machine: any one of them may die."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from flower_nats.broker.connection import Connection
from flower_nats.embedded.nats_server import Membership, NatsServer
from flower_nats.embedded.ownership import read_ours
from flower_nats.embedded.ports import free_ports, is_free, reserve
from flower_nats.embedded.process import private_directory, private_file
from flower_nats.embedded.secret import secret_in

SIZE = 3
"""Servers in a cluster: the fewest that lose nothing, and go on, without one of them."""

_FORM_SECONDS = 60.0


class NatsCluster:
    """Three members, each with a directory `nats-<n>` and a process of its own.

    Ports and secret are kept in `directory/nats-cluster`, so that clients and members find a
    restarted member again. Members can be started, stopped and killed one by one.
    """

    def __init__(self, directory: Path, logs: Path | None = None) -> None:
        self._kept = directory.resolve() / "nats-cluster"
        ports = _settled_ports(private_directory(self._kept) / "ports.json")
        routes = [route for _, route in ports]
        self.members = tuple(
            NatsServer(
                directory / f"nats-{number}",
                logs / f"nats-{number}.log" if logs else None,
                Membership(f"nats-{number}", client, route, routes, secret_in(self._kept)),
            )
            for number, (client, route) in enumerate(ports, 1)
        )

    @property
    def urls(self) -> tuple[str, ...]:
        """URLs of the owner, with the password. Give a client all of them."""
        return tuple(member.url for member in self.members)

    async def start(self) -> tuple[str, ...]:
        """Start every member, wait until the cluster stores messages, and return `urls`.

        Raises what `NatsServer.start` and `until_formed` raise.
        """
        await asyncio.gather(*(member.start() for member in self.members))
        await self.until_formed()
        return self.urls

    async def until_formed(self) -> None:
        """Wait until the members have elected the leader that places streams.

        Raises Unavailable if they have not after a minute.
        """
        connection = await Connection.connect(self.urls, "flower-nats cluster", _FORM_SECONDS)
        try:
            # In a cluster, only the elected leader answers this.
            await connection.account(patience=_FORM_SECONDS)
        finally:
            await connection.close()

    async def stop(self, grace: float = 5.0) -> None:
        """End every member, by force after `grace` seconds. Acknowledged messages are not lost."""
        await asyncio.gather(*(member.stop(grace) for member in self.members))


def is_cluster(directory: Path) -> bool:
    """Whether `directory` holds a cluster."""
    return (directory / "nats-cluster").exists()


def _settled_ports(path: Path) -> list[tuple[int, int]]:
    """Return each member's client and route port, from the file `path` or new ones.

    If another program has taken one of the ports, all members get new ones, and the file is
    rewritten.
    """
    try:
        kept = [(int(client), int(route)) for client, route in json.loads(read_ours(path))]
    except (FileNotFoundError, ValueError):
        kept = []
    if len(kept) == SIZE and all(is_free(port) for pair in kept for port in pair):
        reserve(port for pair in kept for port in pair)
        return kept
    ports = free_ports(2 * SIZE)
    pairs = list(zip(ports[:SIZE], ports[SIZE:], strict=True))
    private_file(path, json.dumps(pairs))
    return pairs
