"""Revoked tokens and disabled accounts stay so while superlinks die and the database fails over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.subjects import OPERATOR
from flower_nats.model.errors import ErrorCode, Outcome
from flower_nats.wire import control_pb2 as control
from flower_nats.wire.methods import BY_NAME
from harness.accounts import LoggedIn, log_in
from harness.channels import CHANNELS, Channel, Refused, WireName
from harness.children import PATIENCE
from harness.cluster import Cluster, Size
from harness.postgres_pair import PostgresPair
from harness.processes import kill

CALLS = 8
"""Calls at each gateway: so many hardly ever all reach the same one of two superlinks."""

SERVED, TURNED_AWAY, AGAIN = "served", "turned away", "asked to come again"


@dataclass
class Runtime:
    """Two gateways, one called over gRPC and one over HTTP, and two superlinks with accounts."""

    cluster: Cluster
    postgres: PostgresPair
    channels: Mapping[WireName, Channel]
    people: dict[str, LoggedIn] = field(default_factory=dict)

    async def command(self, method: str, **question: Any) -> None:
        """Ask a superlink like operators do with `flower-nats`."""
        async with self.cluster.connection() as connection:
            client = RpcClient(connection)
            await client.ask(method, patience=PATIENCE, service=OPERATOR, **question)

    async def come(self, *names: str) -> None:
        """Create accounts for people, and log them in."""
        async with self.cluster.database() as database:
            for name in names:
                self.people[name] = await log_in(database, name)

    async def call(self, name: str, wire: WireName) -> str:
        """Call the Control API; return one of three outcomes. Any other fails the test."""
        method, body = BY_NAME["Control", "ListFederations"], control.ListFederationsRequest()
        metadata = self.people[name].metadata(wire)
        try:
            await self.channels[wire].unary(method, body.SerializeToString(), metadata, 60.0)
        except Refused as exc:
            if exc.outcome is Outcome.UNAVAILABLE:
                return AGAIN
            assert exc.code == ErrorCode.ACCOUNT_AUTHENTICATION_FAILED, exc
            return TURNED_AWAY
        return SERVED

    async def outcomes(self, name: str) -> set[str]:
        """Return the outcomes of many calls, at both gateways."""
        calls = [self.call(name, wire) for wire in self.channels for _ in range(CALLS)]
        return set(await asyncio.gather(*calls))

    async def keep_calling(self, names: Sequence[str], done: asyncio.Event) -> Counter[str]:
        """Call as these people until `done`; count the outcomes of each person."""
        seen: Counter[str] = Counter()
        while not done.is_set():
            for wire in self.channels:
                found = await asyncio.gather(*(self.call(name, wire) for name in names))
                seen.update(f"{name} {one}" for name, one in zip(names, found, strict=True))
            await asyncio.sleep(0.05)
        return seen


@asynccontextmanager
async def runtime(folder: Path) -> AsyncIterator[Runtime]:
    postgres = PostgresPair(folder / "pg")
    cluster = Cluster(folder, Size(nats=1), postgres, ["--accounts"])
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        await cluster.start()
        apis: dict[WireName, str] = {"http": "Http", "grpc": "Control"}
        channels: dict[WireName, Channel] = {}
        for gateway, (wire, api) in zip(cluster.gateways, apis.items(), strict=True):
            channels[wire] = CHANNELS[wire](gateway.addresses[api])
            stack.push_async_callback(channels[wire].close)
        yield Runtime(cluster, postgres, channels)


async def test_who_is_shut_out_stays_out_whatever_is_killed(tmp_path: Path) -> None:
    async with runtime(tmp_path) as one:
        await one.come("ana", "ben", "eva")
        for name in one.people:
            assert await one.outcomes(name) == {SERVED}

        victim = one.cluster.superlinks[0]
        await kill(victim)
        await one.command("RevokeAccountToken", name="ben", token="test")
        assert await one.outcomes("ben") == {TURNED_AWAY}
        await victim.start()
        assert await one.outcomes("ben") == {TURNED_AWAY}
        assert await one.outcomes("ana") == {SERVED}

        done = asyncio.Event()
        calling = asyncio.create_task(one.keep_calling(["ana", "ben"], done))
        await one.postgres.lose_primary()
        # The command waits until a database takes writes.
        disabling = asyncio.create_task(one.command("DisableAccount", name="eva"))
        await one.postgres.promote()
        await disabling
        assert await one.outcomes("eva") == {TURNED_AWAY}
        done.set()
        seen = await calling

        assert await one.outcomes("ana") == {SERVED}
        assert seen[f"ana {TURNED_AWAY}"] == 0, seen
        assert seen[f"ben {SERVED}"] == 0, seen
