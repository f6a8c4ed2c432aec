"""The database's primary is lost for good, and its synchronous standby promoted, under a run."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness.cluster import Cluster, Size
from harness.postgres_pair import PostgresPair
from tests.faults.conftest import FULL
from tests.faults.trial import running_trial

NOTICE_SECONDS = 30.0 if FULL else 5.0
"""How long it takes an operator, or his tool, to see that the primary is gone."""


async def test_a_standby_takes_over_from_the_primary(tmp_path: Path) -> None:
    postgres = PostgresPair(tmp_path / "pg")
    cluster = Cluster(tmp_path, Size(nats=1), postgres)
    try:
        await cluster.start()
        async with running_trial(cluster) as running:
            await postgres.lose_primary()
            await asyncio.sleep(NOTICE_SECONDS)
            await postgres.promote()
            await running.app.more_rounds(2, within=60)

            await running.end_unharmed()
            assert running.log is not None
            assert running.log.ends == []
    finally:
        await cluster.close()
