"""A federation at work, and the checks that must pass whatever happens to the servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.wire import control_pb2 as control
from harness import app
from harness.apps import StockApp
from harness.balancer import Balancer
from harness.channels import WireName
from harness.children import PATIENCE
from harness.cluster import Cluster, Front
from harness.follower import LogFollower
from harness.nodes import Node, StockNode
from harness.supernodes import StockSuperNode
from harness.wire import Wire

NODES = 3


@dataclass(frozen=True)
class Wires:
    """The wires over which the clients of one run call."""

    nodes: Sequence[WireName]
    """The wires of the SuperNodes, in turn."""

    app: WireName
    """The wire of the ServerApp, and of the SuperExec that starts it."""

    cli: WireName
    """The wire of the flwr command."""


MIXED: Mapping[str, Wires] = {
    "grpc-app": Wires(("http", "grpc"), app="grpc", cli="http"),
    "http-app": Wires(("grpc", "http"), app="http", cli="grpc"),
}
"""Federations with clients over both wires. A client that calls over one wire in the first
federation calls over the other wire in the second."""

BOTH = pytest.mark.parametrize("wires", sorted(MIXED), indirect=True)
"""For a test that is about the wires: it runs with both mixtures of the clients."""


@dataclass
class Trial:
    """One run under way, with its own nodes."""

    cluster: Cluster
    balancer: Balancer
    wires: Wires
    nodes: list[StockNode] = field(default_factory=list)
    processes: Sequence[StockSuperNode] = ()
    """Nodes that are stock processes; they outlive the trial."""
    log: LogFollower | None = None
    _app: StockApp | None = None

    @property
    def everybody(self) -> list[Node]:
        """All nodes of the run."""
        return [*self.nodes, *self.processes]

    @property
    def app(self) -> StockApp:
        """The run's ServerApp."""
        assert self._app is not None
        return self._app

    async def wire(self, service: str, name: WireName | None = None) -> Wire:
        """Open a channel for one more client, over the wire that such clients use here."""
        usual: Mapping[str, WireName] = {"Control": self.wires.cli, "Runtime": self.wires.app}
        return Wire(await self.balancer.line(service, name or usual[service]))

    async def connect(self, nodes: int = NODES) -> None:
        """Connect nodes, submit a run, and follow the run's log."""
        self.nodes = [await self.node(number) for number in range(1, nodes + 1)]
        await asyncio.gather(*(node.join() for node in self.nodes))
        await self.submit()

    async def node(self, number: int, key: ec.EllipticCurvePrivateKey | None = None) -> StockNode:
        """Make the node of this number, without joining it."""
        name = self.wires.nodes[number % len(self.wires.nodes)]
        return StockNode(number, await self.wire("Fleet", name), key)

    async def submit(self, fab: bytes | None = None) -> None:
        """Submit a run over the nodes at hand, and follow its log."""
        self._app = StockApp(await self.wire("Control"), await self.wire("Runtime"), self.everybody)
        await self.app.submit(fab)
        self.log = LogFollower(await self.wire("Control"), self.app.run_id)

    async def start(self) -> None:
        """Start the run's ServerApp, and wait for its first round."""
        await self.app.start()
        await self.app.until_round(1, within=PATIENCE)

    async def stop(self) -> None:
        """Stop the run, like `flwr stop`."""
        wire = await self.wire("Control")
        await wire.call("Control", "StopRun", control.StopRunRequest(run_id=self.app.run_id))
        await wire.close()

    async def end_unharmed(self, within: float = PATIENCE) -> None:
        """Let the run end, and check that no client has noticed a fault."""
        await self.end(within)
        await self.assert_unharmed()

    async def end(self, within: float = PATIENCE) -> None:
        """Let the run and its log end."""
        await self.app.until_heard(within)
        await self.app.finish(within)
        assert self.log is not None
        await self.log.until_end(within)

    async def assert_unharmed(self) -> None:
        """Check the results, the nodes and the log of a run that has ended."""
        one, nodes = self.app, self.everybody
        assert one.death is None, one.death
        assert not one.errors
        assert set(one.outcomes.values()) == {1}
        assert not one.seconds
        assert len(one.outcomes) == one.rounds * len(nodes)
        assert one.value == app.expected((node.number for node in nodes), one.rounds)
        assert [node.death for node in nodes] == [None] * len(nodes)
        assert [node.losses for node in nodes] == [[]] * len(nodes)
        assert await self.status() == "finished:completed"
        assert await self.gone() == []
        await self.assert_log()
        await self.assert_nothing_left()

    async def assert_log(self) -> None:
        """Check that early and late followers have every line once and in order."""
        assert self.log is not None
        assert self.log.text == self.app.log
        late = LogFollower(await self.wire("Control"), self.app.run_id)
        await late.until_end()
        assert late.text == self.app.log
        await late.close()

    def assert_log_unbroken(self) -> None:
        """Check that no user had to start `flwr log --stream` again."""
        assert self.log is not None
        assert self.log.ends == [], "a stock `flwr log --stream` would have ended"

    async def assert_nothing_left(self) -> None:
        """Check that a finished run has left only metadata and its log."""
        async with self.cluster.connection() as connection:
            left = await left_behind(connection, self.app.run_id)
            for _ in range(int(PATIENCE / 0.5)):
                if not left:
                    return
                await asyncio.sleep(0.5)
                left = await left_behind(connection, self.app.run_id)
        raise AssertionError(f"left behind: {left[:10]}")

    async def status(self) -> str:
        """The run's status, as `flwr list` shows it."""
        wire = await self.wire("Control")
        request = control.ListRunsRequest(run_id=self.app.run_id)
        answer = await wire.call("Control", "ListRuns", request)
        await wire.close()
        status = answer.run_dict[self.app.run_id].status
        return f"{status.status}:{status.sub_status}"

    async def gone(self) -> list[int]:
        """Return the numbers of our nodes that were ever taken offline."""
        wire = await self.wire("Control")
        answer = await wire.call("Control", "ListNodes", control.ListNodesRequest())
        await wire.close()
        numbers = {node.node_id: node.number for node in self.everybody}
        return [
            numbers[info.node_id]
            for info in answer.nodes_info
            if info.node_id in numbers and (info.last_deactivated_at or info.status != "online")
        ]

    async def close(self) -> None:
        """Kill all clients, without a farewell."""
        await asyncio.gather(*(node.kill() for node in self.nodes))
        if self._app is not None:
            await self._app.kill()
        if self.log is not None:
            await self.log.close()


async def left_behind(connection: Connection, run_id: int) -> list[str]:
    """Return the subjects of a run's messages, objects and transient bodies in the broker."""
    return [
        *await connection.subjects(subjects.MESSAGES_STREAM, subjects.run(run_id)),
        *await connection.subjects(subjects.OBJECTS_STREAM, subjects.objects(run_id)),
        *await connection.subjects(subjects.BLOBS_STREAM, subjects.BLOBS_SUBJECTS),
    ]


@asynccontextmanager
async def fresh_trial(
    cluster: Cluster, wires: Wires, front: Front = Front.TCP
) -> AsyncIterator[Trial]:
    """Prepare a trial; after it, its clients always end and the cluster is always whole again."""
    async with cluster.balancer(front) as balancer:
        one = Trial(cluster, balancer, wires)
        try:
            yield one
        finally:
            await one.close()
            await cluster.heal()


@asynccontextmanager
async def running_trial(
    cluster: Cluster, wires: Wires, front: Front = Front.TCP
) -> AsyncIterator[Trial]:
    """Begin a trial."""
    async with fresh_trial(cluster, wires, front) as one:
        await one.connect()
        await one.start()
        yield one
