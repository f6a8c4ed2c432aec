"""``python -m benchmarks.log_search``: the cost of a search for a word in a million lines of logs.

It starts a nats-server and a PostgreSQL, and stores the lines of many runs as gateways do: a
hundred lines of Flower, with their colours, in a record. Then it searches to the end, as the
console's page does, for a word that one line has, and measures the superlink's processor time.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.runlog import RunLogs
from flower_nats.broker.streams import ensure_streams
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.caller import NO_ACCOUNT_ID, NO_ACCOUNT_NAME, Caller
from flower_nats.model.run import NewRun
from flower_nats.store.connection import Database
from flower_nats.store.fabs import Fabs
from flower_nats.store.migrate import migrate
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.console.log_search import LogSearch

_LINES = 100
"""Lines in one record: a busy app prints as many between two calls."""

_WORD = "Needle"

_NEW = NewRun(
    fab_id="somebody/app",
    fab_version="1.0.0",
    fab_hash="fab",
    override_config=b"",
    federation="@none/default",
    account_id=NO_ACCOUNT_ID,
    account_name=NO_ACCOUNT_NAME,
    primary_task_type="flwr-serverapp",
)


def record(run: int, first: int) -> bytes:
    """Return some lines of a run, as one call sends them."""
    return b"".join(
        b"\x1b[92mINFO\x1b[0m :      run %d, round %d: loss 0.693147, accuracy 0.9712 of 24 clients\n"
        % (run, number)
        for number in range(first, first + _LINES)
    )


async def write(database: Database, connection: Connection, runs: int, lines: int) -> None:
    """Store runs with ``lines`` lines each; the oldest run has the word at the end of its log."""
    await Fabs(database).put(_NEW.fab_hash, b"")
    for run in range(1, runs + 1):
        series = await SeriesStore(database).begin(_NEW.federation, "", is_agent=False)
        await Runs(database).create(run, series, _NEW)
        await asyncio.gather(
            *(
                connection.store(subjects.log(run), record(run, first), message_id=f"{run}.{first}")
                for first in range(0, lines, _LINES)
            )
        )
    await connection.store(subjects.log(1), f"{_WORD}\n".encode())


async def look(search: LogSearch, text: str) -> dict[str, Any]:
    """Search to the end, as the page does; return the counts and the times."""
    began, cpu = time.monotonic(), time.process_time()
    total = {"hits": 0, "lines": 0, "answers": 0}
    place: Any = {"skip": 0, "run_id": "", "after": 0, "line": 0}
    while place is not None:
        answer = await search.search({"text": text, "federation": "", **place}, Caller())
        total["hits"] += len(answer["hits"])
        total["lines"] += answer["looked"]["lines"]
        total["answers"] += 1
        place = answer["next"]
    return {**total, "wall": time.monotonic() - began, "cpu": time.process_time() - cpu}


async def measure(directory: Path, runs: int, lines: int) -> dict[str, Any]:
    """Start the servers, write the logs and search them."""
    nats, postgres = NatsServer(directory / "nats"), PostgresServer(directory / "postgres")
    url, dsn = await nats.start(), await postgres.start()
    database, connection = Database(dsn), await Connection.connect([url], "benchmark")
    try:
        await database.open()
        await migrate(database)
        await ensure_streams(connection)
        await write(database, connection, runs, lines)
        search = LogSearch(
            database, RunLogs(connection), Identity(database, accounts=False), Guard(database)
        )
        return await look(search, _WORD.upper())
    finally:
        await connection.close()
        await database.close()
        await nats.stop()
        await postgres.stop()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--lines", type=int, default=1_000_000, help="lines of all runs together")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = asyncio.run(measure(Path(directory), given.runs, given.lines // given.runs))
    print(
        f"{found['lines']:,} lines of {given.runs} runs: {found['hits']} found in {found['wall']:.2f} s"
        f" and {found['answers']} answers; {found['cpu']:.2f} s of processor time of the superlink"
    )


if __name__ == "__main__":
    main()
