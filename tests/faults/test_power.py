"""Everything dies at the same moment, and comes back."""

from __future__ import annotations

import asyncio

from harness.cluster import Cluster
from harness.processes import kill_all
from tests.faults.trial import Trial


async def test_every_process_is_killed_at_once(cluster: Cluster, running: Trial) -> None:
    await kill_all(cluster.everybody)
    # In no order: what comes up before what it needs waits for it.
    await asyncio.gather(*(one.start() for one in cluster.everybody))
    await running.app.more_rounds(2, within=60)

    await running.end_unharmed()
