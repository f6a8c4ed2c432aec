"""What accounts cost: ``python -m benchmarks.accounts`` times a Control call with and without them.

Two superlinks on NATS servers of their own serve the same call from one database, in turns, so that
whatever else the machine does meets both.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.account import Role
from flower_nats.model.caller import Caller
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database
from flower_nats.superlink.worker import serve
from flower_nats.wire import control_pb2 as control
from harness.accounts import log_in

_CALLS = 1_000
_WARM_UP = 100

_MOST_MS = 2.0
"""What a call may cost more."""


@asynccontextmanager
async def _superlink(folder: Path, database: str, *, accounts: bool) -> AsyncIterator[RpcClient]:
    server = NatsServer(folder)
    url = await server.start()
    stop = asyncio.Event()
    settings = SuperlinkSettings(nats=(url,), database=database, accounts=accounts)
    running = asyncio.create_task(serve(settings, stop))
    connection = await Connection.connect([url], "benchmark")
    try:
        yield RpcClient(connection)
    finally:
        await connection.close()
        stop.set()
        await running
        await server.stop()


async def _milliseconds(rpc: RpcClient, caller: Caller) -> float:
    body, began = control.ListNodesRequest().SerializeToString(), time.perf_counter()
    await rpc.call("Control", "ListNodes", body, caller)
    return (time.perf_counter() - began) * 1000


async def _measure(folder: Path) -> tuple[float, float]:
    """Return the median of a call without accounts, and with them."""
    postgres = PostgresServer(folder / "postgres")
    await postgres.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(postgres.stop)
        start = stack.enter_async_context
        without = await start(_superlink(folder / "without", postgres.dsn, accounts=False))
        await _milliseconds(without, Caller())
        database = Database(postgres.dsn)
        await database.open()
        stack.push_async_callback(database.close)
        token = (await log_in(database, "ana", Role.OPERATOR)).token_hash
        with_accounts = await start(_superlink(folder / "with", postgres.dsn, accounts=True))
        took: tuple[list[float], list[float]] = ([], [])
        for _ in range(_WARM_UP + _CALLS):
            took[0].append(await _milliseconds(without, Caller()))
            took[1].append(await _milliseconds(with_accounts, Caller(account_token=token)))
    one, other = (statistics.median(times[_WARM_UP:]) for times in took)
    return one, other


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="flower-nats-") as folder:
        without, with_accounts = asyncio.run(_measure(Path(folder)))
    more = with_accounts - without
    verdict = "within" if more <= _MOST_MS else "MORE than"
    print(
        f"a Control call: {without:.2f} ms without accounts, {with_accounts:.2f} ms with them: "
        f"{more:.2f} ms more, {verdict} the {_MOST_MS:g} ms that it may cost"
    )


if __name__ == "__main__":
    main()
