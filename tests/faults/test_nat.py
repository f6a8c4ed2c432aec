"""Stock SuperNodes behind a router that masquerades and drops everything inbound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio

from harness.balancer import Balancer, Line
from harness.channels import WireName
from harness.cluster import Cluster, Front
from harness.supernodes import StockSuperNode, fab
from tests.faults import nat
from tests.faults.conftest import FULL
from tests.faults.trial import MIXED, Trial

WIRES: Sequence[WireName] = ("grpc", "http")
"""The wire of each SuperNode."""

IDLE_SECONDS = 120.0 if FULL else 40.0
"""Within this time every node pauses between two heartbeats for longer than `FLOW_TIMEOUT`."""

FLOW_TIMEOUT = 18
"""Seconds. Shorter than the hold of an empty PullMessages, and than the pause between heartbeats.
The pings of gateways, or of the balancer before them, reach the nodes every 10 s: often enough even
when they are late. Over HTTP the pings are TCP keep-alives."""

RETRANSMISSIONS = 6 if FULL else 3
"""TCP gives up in half a minute with 6 (advised in `docs/network.md`); in 3 seconds with 3."""


@dataclass
class Hospital:
    """SuperNodes at work behind their router."""

    site: nat.Site
    cluster: Cluster
    balancer: Balancer
    lines: Mapping[WireName, Line]
    supernodes: list[StockSuperNode]

    @asynccontextmanager
    async def run(self) -> AsyncIterator[Trial]:
        """Begin a run over the hospital's SuperNodes."""
        one = Trial(self.cluster, self.balancer, MIXED["http-app"], processes=self.supernodes)
        try:
            await one.submit(fab())
            await one.start()
            yield one
        finally:
            await one.close()


@pytest_asyncio.fixture(
    scope="module", loop_scope="session", params=[Front.TCP, Front.ENVOY] if FULL else [Front.TCP]
)
async def hospital(
    cluster: Cluster, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Hospital]:
    front, folder = request.param, tmp_path_factory.mktemp("hospital")
    try:
        with nat.site() as site:
            async with cluster.balancer(front) as balancer:
                lines = {
                    wire: await balancer.line(
                        "Fleet", wire, nat.listener(site.internet, nat.INTERNET)
                    )
                    for wire in WIRES
                }
                within = partial(nat.in_namespace, site.hospital)
                supernodes = [
                    StockSuperNode(number, wire, line.address, folder, within)
                    for number, (wire, line) in enumerate(lines.items(), 1)
                ]
                try:
                    await asyncio.gather(*(one.until_online() for one in supernodes))
                    yield Hospital(site, cluster, balancer, lines, supernodes)
                finally:
                    await asyncio.gather(*(one.kill() for one in supernodes))
    except nat.NoNamespaces as exc:
        pytest.skip(str(exc))


async def test_nobody_gets_in_and_supernodes_do_not_need_it(hospital: Hospital) -> None:
    site = hospital.site
    with nat.listener(site.hospital, "0.0.0.0") as inside:
        port = inside.getsockname()[1]
        assert nat.can_connect(site.router, nat.INSIDE, port)
        assert not nat.can_connect(site.internet, nat.INSIDE, port)
        assert not nat.can_connect(site.internet, site.address, port)
    async with hospital.run() as run:
        await run.end_unharmed()
    for line in hospital.lines.values():
        assert set(line.callers) == {site.address}


@pytest.mark.long
async def test_the_router_forgets_idle_flows_but_ours_are_never_idle(hospital: Hospital) -> None:
    hospital.site.drop_unknown_flows()
    hospital.site.forget_idle_flows(after=FLOW_TIMEOUT)
    over_grpc = hospital.lines["grpc"]
    connections = len(over_grpc.callers)

    await asyncio.sleep(IDLE_SECONDS)
    async with hospital.run() as run:
        await run.end_unharmed()

    # Over HTTP the clients themselves close connections that were idle for 5 s.
    assert len(over_grpc.callers) == connections


@pytest.mark.long
async def test_the_router_gets_another_address_and_old_flows_die_silently(
    hospital: Hospital,
) -> None:
    hospital.site.drop_unknown_flows()
    hospital.site.give_up_after(RETRANSMISSIONS)

    async with hospital.run() as run:
        hospital.site.change_address()
        await run.app.more_rounds(1)
        await run.end_unharmed()

    for line in hospital.lines.values():
        assert line.callers[-1] == hospital.site.address
