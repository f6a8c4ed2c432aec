"""The NATS of a data directory: one server, or a cluster of three."""

from __future__ import annotations

from collections.abc import Sequence

from flower_nats.broker.permissions import User
from flower_nats.embedded.nats_cluster import SIZE, NatsCluster, is_cluster
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.model.errors import FlowerNatsError
from flower_nats_cli.datadir import DataDir


class SingleServerError(FlowerNatsError):
    """The directory's NATS is one server, and stays it."""


class Broker:
    """One NATS server, or a cluster of three if there are enough replicas.

    The choice of the first `up` of a directory holds for good, because the streams are there: with
    fewer replicas later, the cluster stays. Raises SingleServerError if the streams are on one
    server and a cluster is asked for.
    """

    def __init__(self, data: DataDir, replicas: int) -> None:
        self._cluster: NatsCluster | None = None
        self.servers: Sequence[NatsServer]
        if is_cluster(data.path) or (replicas >= SIZE and not data.nats.exists()):
            self._cluster = NatsCluster(data.path, data.logs)
            self.servers = self._cluster.members
            return
        if replicas >= SIZE:
            raise SingleServerError(
                f"{data.path} keeps its streams on one NATS server, and cannot change to a "
                f"cluster. Remedy: another --data-dir, or --replicas {SIZE - 1}."
            )
        self.servers = [NatsServer(data.nats, data.log_of("nats"))]

    def urls_of(self, user: User) -> tuple[str, ...]:
        """Return a user's URLs with its password; they are known once the servers have started."""
        return tuple(server.url_of(user) for server in self.servers)

    async def until_formed(self) -> None:
        """Wait until the running servers store messages."""
        if self._cluster is not None:
            await self._cluster.until_formed()
