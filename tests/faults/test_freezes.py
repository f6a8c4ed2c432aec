"""SIGSTOP: a replica that lives, holds its connections and does nothing."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.cluster import Cluster
from tests.faults.conftest import FULL
from tests.faults.processes import freeze, thaw
from tests.faults.trial import Trial

FREEZE_SECONDS = 70.0 if FULL else 12.0


@pytest.mark.parametrize("first", [0, 1])
async def test_a_gateway_is_frozen(cluster: Cluster, running: Trial, first: int) -> None:
    freeze(cluster.gateways[first])
    await asyncio.sleep(FREEZE_SECONDS)
    thaw(cluster.gateways[first])
    await running.app.more_rounds(2, within=60)

    await running.end_unharmed()


async def test_a_superlink_is_frozen(cluster: Cluster, running: Trial) -> None:
    freeze(cluster.superlinks[0])
    await asyncio.sleep(FREEZE_SECONDS)
    thaw(cluster.superlinks[0])
    await running.app.more_rounds(2, within=60)

    await running.end_unharmed()
