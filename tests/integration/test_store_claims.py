"""Things that replicas must not do twice (leases, nonces, answers), and silence that counts."""

from __future__ import annotations

import asyncio

import pytest

from flower_nats.model.caller import NO_ACCOUNT_ID, NO_ACCOUNT_NAME
from flower_nats.model.federation import DEFAULT_FEDERATION
from flower_nats.model.run import NewRun
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.fabs import Fabs
from flower_nats.store.idempotency import drop_old_answers, once
from flower_nats.store.leases import Leases
from flower_nats.store.nodes import Nodes
from flower_nats.store.nonces import Nonces
from flower_nats.store.replicas import Replicas
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore


async def pass_time(database: Database, seconds: float) -> None:
    """Move every time in the database into the past, as if nothing had happened since."""
    back = "make_interval(secs => %(seconds)s)"
    for statement in (
        f"UPDATE node SET online_until = online_until - {back}, unheard_since = unheard_since - {back},"
        f" registered_at = registered_at - {back}, last_activated_at = last_activated_at - {back},"
        f" last_deactivated_at = last_deactivated_at - {back}",
        f"UPDATE task SET active_until = active_until - {back}, finished_at = finished_at - {back}",
        f"UPDATE hearing SET heard_at = heard_at - {back}",
        f"UPDATE lease SET expires_at = expires_at - {back}",
        f"UPDATE nonce SET expires_at = expires_at - {back}",
        f"UPDATE answer SET created_at = created_at - {back}",
        f"UPDATE replica SET seen_at = seen_at - {back}",
    ):
        await database.execute(statement, seconds=seconds)


RUN = 7


async def make_run(database: Database) -> None:
    """Make a run in the default federation, to which all nodes without an account belong."""
    await Fabs(database).put("fab", b"")
    series = await SeriesStore(database).begin(DEFAULT_FEDERATION, "", is_agent=False)
    new = NewRun(
        fab_id="somebody/app",
        fab_version="1.2.3",
        fab_hash="fab",
        override_config=b"",
        federation=DEFAULT_FEDERATION,
        account_id=NO_ACCOUNT_ID,
        account_name=NO_ACCOUNT_NAME,
        primary_task_type="flwr-serverapp",
    )
    await Runs(database).create(RUN, series, new)


async def online(database: Database) -> list[int]:
    """Return the nodes that the run samples from."""
    return [node.node_id for node in await Nodes(database).online_of_run(RUN)]


async def test_a_lease_has_one_holder(database: Database) -> None:
    leases = Leases(database)

    won = await asyncio.gather(*(leases.try_lease("nodes", f"r{n}", 10) for n in range(8)))

    assert won.count(True) == 1
    winner = f"r{won.index(True)}"
    assert await leases.try_lease("nodes", winner, 10)
    assert await leases.try_lease("tasks", "another", 10)


async def test_a_lease_is_taken_over_when_it_is_over_or_given_back(database: Database) -> None:
    leases = Leases(database)
    await leases.try_lease("nodes", "first", 10)

    await pass_time(database, 11)
    assert await leases.try_lease("nodes", "second", 10)
    assert not await leases.try_lease("nodes", "first", 10)

    await leases.release("second")
    assert await leases.try_lease("nodes", "first", 10)


async def test_a_nonce_has_one_holder(database: Database) -> None:
    nonces = Nonces(database)
    late = 4e9

    reserved = await asyncio.gather(
        *(nonces.reserve("superexec", "n", late, f"r{n}") for n in range(8))
    )

    assert reserved.count(True) == 1
    assert await nonces.reserve("superexec", "n", late, f"r{reserved.index(True)}")
    assert await nonces.reserve("elsewhere", "n", late, "r9")


async def test_a_nonce_whose_time_is_over_is_forgotten(database: Database) -> None:
    nonces = Nonces(database)
    await nonces.reserve("superexec", "old", 1.0, "r")
    await nonces.reserve("superexec", "new", 4e9, "r")

    assert await nonces.drop_expired() == 1
    assert not await nonces.reserve("superexec", "new", 4e9, "r2")


async def test_a_request_is_carried_out_once_by_all_who_try(database: Database) -> None:
    carried_out = []

    async def work(transaction: Transaction) -> bytes:
        await Nodes(transaction).register(b"key", "owner", "name", 30)
        carried_out.append(1)
        return b"answer %d" % len(carried_out)

    answers = await asyncio.gather(*(once(database, "request", work) for _ in range(8)))

    assert set(answers) == {b"answer 1"}
    assert len(carried_out) == 1


async def test_a_request_that_was_refused_can_be_made_again(database: Database) -> None:
    async def refuse(_: Transaction) -> bytes:
        raise KeyError

    async def work(_: Transaction) -> bytes:
        return b"done"

    with pytest.raises(KeyError):
        await once(database, "request", refuse)

    assert await once(database, "request", work) == b"done"


async def test_old_answers_are_forgotten(database: Database) -> None:
    async def work(_: Transaction) -> bytes:
        return b"done"

    await once(database, "request", work)
    assert await drop_old_answers(database) == 0
    await pass_time(database, 3600)
    assert await drop_old_answers(database) == 1


async def test_a_silent_node_goes_offline_and_a_heard_one_stays(database: Database) -> None:
    nodes, replicas = Nodes(database), Replicas(database)
    await replicas.heard()
    await make_run(database)
    for key in (b"silent", b"heard"):
        await nodes.register(key, NO_ACCOUNT_ID, NO_ACCOUNT_NAME, 0)
    silent = await nodes.activate(b"silent", 30)
    heard = await nodes.activate(b"heard", 30)
    assert silent is not None and heard is not None

    for _ in range(12):
        await pass_time(database, 5.1)
        await replicas.heard()
        await nodes.heartbeats([(heard, 30)])

    assert await nodes.expire() == [silent]
    assert await online(database) == [heard]
    assert await nodes.heartbeats([(silent, 30), (99, 30)]) == {99}
    assert len(await online(database)) == 2


async def test_nothing_expires_while_nothing_can_be_heard(database: Database) -> None:
    nodes, replicas = Nodes(database), Replicas(database)
    await replicas.heard()
    await nodes.register(b"key", "owner", "name", 0)
    node_id = await nodes.activate(b"key", 30)

    # An outage of an hour: no node could be heard, so no node is given up.
    await pass_time(database, 3600)
    assert await nodes.expire() == []

    # After the outage, the node has as much time as before.
    assert await replicas.heard() == pytest.approx(3600, abs=5)
    assert await nodes.expire() == []
    for _ in range(12):
        await pass_time(database, 5.1)
        assert await replicas.heard() == 0.0
    assert await nodes.expire() == [node_id]


async def test_nothing_expires_before_a_gateway_was_there(database: Database) -> None:
    nodes = Nodes(database)
    await nodes.register(b"key", "owner", "name", 0)
    await nodes.activate(b"key", 30)

    await pass_time(database, 3600)

    assert await nodes.expire() == []


async def test_two_gateways_that_announce_after_an_outage_move_the_deadlines_once(
    database: Database,
) -> None:
    replicas = Replicas(database)
    await replicas.heard()
    await pass_time(database, 3600)

    moved = await asyncio.gather(*(replicas.heard() for _ in range(6)))

    assert [span > 0 for span in moved].count(True) == 1


async def test_replicas_are_listed_while_they_are_seen(database: Database) -> None:
    replicas = Replicas(database)
    await replicas.announce("gateway", "g", 5.0)
    await replicas.announce("superlink", "s", 6.5)
    await replicas.announce("superlink", "gone", 7)
    await replicas.leave("superlink", "gone")

    alive = await replicas.alive()
    assert [(one.kind, one.id, one.since.timestamp()) for one in alive] == [
        ("gateway", "g", 5.0),
        ("superlink", "s", 6.5),
    ]
    await pass_time(database, 20)
    assert await replicas.alive() == []
    await pass_time(database, 3600)
    assert await replicas.drop_gone() == 2


async def test_batches_of_heartbeats_that_overlap_do_not_block_each_other(
    database: Database,
) -> None:
    nodes = Nodes(database)
    await make_run(database)
    ids = []
    for number in range(50):
        ids.append(await nodes.register(b"%d" % number, NO_ACCOUNT_ID, NO_ACCOUNT_NAME, 0) or 0)

    unknown = await asyncio.gather(
        *(
            nodes.heartbeats([(node_id, 30) for node_id in order])
            for order in (ids, ids[::-1], ids[25:], ids[:25]) * 5
        )
    )

    assert unknown == [set()] * 20
    assert sorted(await online(database)) == sorted(ids)
