"""The cost of accounts: ``python -m benchmarks.accounts`` times Control calls with and without.

Two superlinks, each with a NATS server, serve the same calls from one database. The calls
alternate, so other work on the machine slows both alike. With accounts, each call makes one more
query to the database: which account the token belongs to.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.model.caller import Caller
from flower_nats.model.federation import DEFAULT_FEDERATION, Member, MemberRole
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database
from flower_nats.store.members import Members
from flower_nats.superlink.worker import serve
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from harness.accounts import log_in
from harness.fabs import make_fab

_CALLS = 1_000
_WARM_UP = 100

_MOST_MS = 2.0
"""Milliseconds that accounts may add to a call."""


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


async def _milliseconds(rpc: RpcClient, name: str, body: bytes, caller: Caller) -> float:
    began = time.perf_counter()
    await rpc.call("Control", name, body, caller)
    return (time.perf_counter() - began) * 1000


async def _start_run(rpc: RpcClient) -> int:
    request = control.StartRunRequest(
        fab=common.Fab(content=make_fab()), federation=DEFAULT_FEDERATION
    )
    answer = await rpc.call("Control", "StartRun", request.SerializeToString(), Caller())
    return control.StartRunResponse.FromString(answer).run_id


async def _measure(folder: Path) -> dict[str, tuple[float, float]]:
    """Return the median of each call without accounts, and with them."""
    postgres = PostgresServer(folder / "postgres")
    await postgres.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(postgres.stop)
        start = stack.enter_async_context
        without = await start(_superlink(folder / "without", postgres.dsn, accounts=False))
        run_id = await _start_run(without)
        database = Database(postgres.dsn)
        await database.open()
        stack.push_async_callback(database.close)
        person = await log_in(database, "ana")
        member = Member(person.account.account_id, person.account.name, MemberRole.MEMBER)
        await Members(database).add(DEFAULT_FEDERATION, member)
        with_accounts = await start(_superlink(folder / "with", postgres.dsn, accounts=True))
        medians = {}
        for name, fields in {"ListNodes": {}, "ListRuns": {"run_id": run_id}}.items():
            body = BY_NAME["Control", name].request(**fields).SerializeToString()
            took: tuple[list[float], list[float]] = ([], [])
            for _ in range(_WARM_UP + _CALLS):
                known = Caller(account_token=person.token_hash)
                took[0].append(await _milliseconds(without, name, body, Caller()))
                took[1].append(await _milliseconds(with_accounts, name, body, known))
            one, other = (statistics.median(times[_WARM_UP:]) for times in took)
            medians[name] = (one, other)
    return medians


def main() -> None:
    """Measure and print."""
    with TemporaryDirectory(prefix="flower-nats-") as folder:
        # uvloop is the event loop of superlinks, too.
        medians = uvloop.run(_measure(Path(folder)))
    for name, (without, with_accounts) in medians.items():
        more = with_accounts - without
        verdict = "within" if more <= _MOST_MS else "MORE than"
        print(
            f"{name}: {without:.2f} ms without accounts, {with_accounts:.2f} ms with them: "
            f"{more:.2f} ms more, {verdict} the {_MOST_MS:g} ms that a Control call may cost"
        )


if __name__ == "__main__":
    main()
