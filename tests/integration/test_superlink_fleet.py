"""A superlink's answers about nodes, for gateways and the CLI."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from unittest.mock import ANY

import flwr.supercore.utils
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from flower_nats.broker import subjects
from flower_nats.broker.hints import Wakes
from flower_nats.model.errors import ErrorCode
from flower_nats.store.nodes import UNSEEN_SECONDS, Nodes
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from harness.children import PATIENCE
from tests.integration.superlinks import Node, Superlink, refused, running_superlink


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        yield superlink


@pytest.fixture
async def locked_superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, enable_supernode_auth=True) as superlink:
        yield superlink


def pem(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def node_key() -> bytes:
    return pem(ec.generate_private_key(ec.SECP384R1()).public_key())


async def register(
    superlink: Superlink,
    key: bytes,
    *,
    name: str | None = None,
    location: str | None = None,
    **caller: str,
) -> int:
    request = control.RegisterNodeRequest(public_key=key, name=name, location=location)
    answer = await superlink.call(
        "Control", "RegisterNode", request, control.RegisterNodeResponse, **caller
    )
    return answer.node_id


async def unregister(superlink: Superlink, node_id: int) -> None:
    request = control.UnregisterNodeRequest(node_id=node_id)
    await superlink.call("Control", "UnregisterNode", request, control.UnregisterNodeResponse)


async def nodes(superlink: Superlink) -> dict[int, common.NodeInfo]:
    answer = await superlink.call(
        "Control", "ListNodes", control.ListNodesRequest(), control.ListNodesResponse
    )
    return {node.node_id: node for node in answer.nodes_info}


async def deactivate(node: Node, node_id: int | None = None) -> None:
    request = fleet.DeactivateNodeRequest(node_id=node_id or node.node_id)
    await node.call("DeactivateNode", request, fleet.DeactivateNodeResponse)


async def leave(node: Node) -> None:
    request = fleet.UnregisterNodeFleetRequest(node_id=node.node_id)
    await node.call("UnregisterNode", request, fleet.UnregisterNodeFleetResponse)


async def test_a_node_comes_goes_and_leaves_for_good(superlink: Superlink) -> None:
    node = await superlink.online_node()
    shown = (await nodes(superlink))[node.node_id]
    assert (shown.status, shown.owner_name, shown.public_key) == ("online", "none", node.key)
    assert shown.registered_at <= shown.last_activated_at
    assert shown.heartbeat_interval == 30
    assert not shown.HasField("last_deactivated_at")

    await deactivate(node)
    assert (await nodes(superlink))[node.node_id].status == "offline"
    with refused(ErrorCode.NODE_DEACTIVATION_FAILED):
        await deactivate(node)

    await node.activate()
    await leave(node)
    shown = (await nodes(superlink))[node.node_id]
    assert (shown.status, shown.HasField("unregistered_at")) == ("unregistered", True)
    assert await superlink.ask("ResolveNode", public_key=node.key) == {
        "node_id": None,
        "registered_by_account": False,
        "left": node.node_id,
    }
    with refused(ErrorCode.NODE_ACTIVATION_FAILED):
        await node.activate()

    again = await superlink.online_node(node.key)
    assert again.node_id != node.node_id
    assert (await superlink.ask("ResolveNode", public_key=node.key))["node_id"] == again.node_id


async def test_a_process_that_hands_over_to_another_one_does_not_take_the_node_with_it(
    superlink: Superlink,
) -> None:
    node = await superlink.online_node()
    await node.activate()

    await deactivate(node)
    assert (await nodes(superlink))[node.node_id].status == "online"

    await deactivate(node)
    assert (await nodes(superlink))[node.node_id].status == "offline"


async def test_a_node_whose_other_process_was_killed_is_soon_taken_offline_after_its_farewell(
    superlink: Superlink,
) -> None:
    node = await superlink.online_node()
    await node.activate()

    await deactivate(node)

    left = await superlink.database.fetch_one(
        "SELECT online_until - now() < interval '36 s' AS soon FROM node WHERE node_id = %(node_id)s",
        node_id=node.node_id,
    )
    assert left == {"soon": True}


async def test_a_key_that_was_unregistered_is_for_the_account_that_had_registered_it(
    superlink: Superlink,
) -> None:
    key = node_key()
    first = await register(superlink, key)
    await unregister(superlink, first)

    with refused(ErrorCode.PUBLIC_KEY_ALREADY_IN_USE):
        await superlink.online_node(key)
    strangers = await Nodes(superlink.database).register(key, "x", "x", 30.0, by_account=True)
    assert strangers is None
    again = await register(superlink, key)

    assert again != first
    assert {first, again} <= set(await nodes(superlink))
    await Node(superlink, again, key).activate()
    with refused(ErrorCode.PUBLIC_KEY_ALREADY_IN_USE):
        await register(superlink, key)


async def test_nodes_that_registered_themselves_and_are_not_seen_are_forgotten(
    superlink: Superlink,
) -> None:
    gone, asleep = await superlink.online_node(), await superlink.online_node()
    online, vouched = await superlink.online_node(), await register(superlink, node_key())
    await deactivate(gone)
    await deactivate(asleep)
    week = UNSEEN_SECONDS
    for node_id, seconds in ((gone.node_id, week + 60), (asleep.node_id, week - 60)):
        await superlink.database.execute(
            "UPDATE node SET registered_at = now() - make_interval(secs => %(age)s),"
            " last_deactivated_at = now() - make_interval(secs => %(age)s)"
            " WHERE node_id = %(node_id)s",
            node_id=node_id,
            age=seconds,
        )
    for node_id in (online.node_id, vouched):
        await superlink.database.execute(
            "UPDATE node SET registered_at = now() - make_interval(secs => %(age)s)"
            " WHERE node_id = %(node_id)s",
            node_id=node_id,
            age=week + 60,
        )

    assert await Nodes(superlink.database).forget_unseen() == [gone.node_id]

    assert {asleep.node_id, online.node_id, vouched} <= set(await nodes(superlink))
    assert gone.node_id not in await nodes(superlink)
    with refused(ErrorCode.NODE_ACTIVATION_FAILED):
        await gone.activate()


async def test_a_registration_can_be_repeated(superlink: Superlink) -> None:
    key = uuid.uuid4().bytes

    registered = await asyncio.gather(*(superlink.online_node(key) for _ in range(4)))

    assert len({node.node_id for node in registered}) == 1


async def test_a_node_that_is_online_takes_over_from_itself(superlink: Superlink) -> None:
    node = await superlink.online_node()

    assert await node.activate(interval=60) == node.node_id
    assert (await nodes(superlink))[node.node_id].heartbeat_interval == 60


@pytest.mark.parametrize("interval", [0.0, 9.9, 1800.1, float("nan"), -30.0])
async def test_a_heartbeat_interval_out_of_bounds_is_refused(
    superlink: Superlink, interval: float
) -> None:
    node = await superlink.online_node()

    with refused(ErrorCode.INVALID_HEARTBEAT_INTERVAL):
        await node.activate(interval=interval)


async def test_nobody_acts_for_another_node(superlink: Superlink) -> None:
    mine, other = await superlink.online_node(), await superlink.online_node()

    with refused(ErrorCode.INVALID_NODE_ID):
        await deactivate(mine, other.node_id)
    with refused(ErrorCode.INVALID_SIGNATURE):
        await Node(superlink, mine.node_id, mine.key).call(
            "ActivateNode",
            fleet.ActivateNodeRequest(public_key=other.key, heartbeat_interval=30),
            fleet.ActivateNodeResponse,
        )


async def test_only_keys_registered_before_come_in_when_auth_is_enabled(
    locked_superlink: Superlink,
) -> None:
    superlink = locked_superlink
    with refused(ErrorCode.SUPERNODE_REGISTRATION_DISABLED):
        await superlink.online_node()

    key = node_key()
    node = Node(superlink, await register(superlink, key), key)
    assert (await nodes(superlink))[node.node_id].status == "registered"
    await node.activate()
    assert (await nodes(superlink))[node.node_id].status == "online"
    with refused(ErrorCode.SUPERNODE_UNREGISTRATION_DISABLED):
        await leave(node)

    await unregister(superlink, node.node_id)
    with refused(ErrorCode.NODE_ACTIVATION_FAILED):
        await node.activate()
    with refused(ErrorCode.NODE_NOT_FOUND):
        await unregister(superlink, node.node_id)


async def test_the_cli_registers_a_key_once_however_often_a_gateway_asks(
    superlink: Superlink,
) -> None:
    key = node_key()

    first = await register(superlink, key, request_id="one call")

    assert await register(superlink, key, request_id="one call") == first
    with refused(ErrorCode.PUBLIC_KEY_ALREADY_IN_USE):
        await register(superlink, key)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"nonsense",
        pem(rsa.generate_private_key(65537, 2048).public_key()),
        pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
    ],
    ids=["empty", "nonsense", "rsa", "not nist"],
)
async def test_a_key_that_nodes_cannot_sign_with_is_refused(
    superlink: Superlink, key: bytes
) -> None:
    with refused(ErrorCode.PUBLIC_KEY_NOT_VALID):
        await register(superlink, key)


async def test_a_node_is_shown_with_the_name_and_the_place_that_its_owner_gave_it(
    superlink: Superlink,
) -> None:
    key = node_key()
    named = await register(superlink, key, name="Zürich", location="47.37, 8.54")
    nameless = await register(superlink, node_key())

    shown = await nodes(superlink)
    assert (shown[named].name, shown[named].location) == ("Zürich", "47.37, 8.54")
    assert not shown[nameless].HasField("name")
    assert not shown[nameless].HasField("location")

    await Node(superlink, named, key).activate()
    task = await superlink.running_task()
    seen = await task.call("GetNodes", runtime.GetNodesRequest(), runtime.GetNodesResponse)
    assert [(node.name, node.location) for node in seen.nodes] == [("Zürich", "47.37, 8.54")]


async def test_a_node_that_registered_itself_gets_a_name_from_who_vouches_for_it(
    superlink: Superlink,
) -> None:
    key = node_key()
    node = await superlink.online_node(key)

    assert await register(superlink, key, name="ward 3") == node.node_id
    assert (await nodes(superlink))[node.node_id].name == "ward 3"


@pytest.mark.parametrize(
    "location", ["", "here", "1", "1,2,3", "91,0", "0,180.5", "nan,0", "0,inf", "1;2"]
)
async def test_a_place_that_is_nowhere_is_refused_in_flowers_words(
    superlink: Superlink, location: str
) -> None:
    with refused(ErrorCode.INVALID_SUPERNODE_LOCATION) as refusal:
        await register(superlink, node_key(), location=location)

    assert refusal.value.public_details == flowers_words(location)


def flowers_words(location: str) -> str | None:
    """Return stock Flower's error about a location; flwr before 1.38 has no such check."""
    check = getattr(flwr.supercore.utils, "validate_node_location", None)
    if check is None:
        return ANY
    with pytest.raises(ValueError) as error:
        check(location)
    return str(error.value)


async def test_everybody_hears_when_a_node_comes_or_leaves(superlink: Superlink) -> None:
    wakes = Wakes(superlink.connection)
    await wakes.start()
    key = node_key()
    node_id = await register(superlink, key)

    with wakes.on(subjects.event_node(node_id)) as wait:
        await unregister(superlink, node_id)
        assert await wait.wait(PATIENCE)


async def test_the_run_and_its_fab_are_for_nodes_while_it_runs(superlink: Superlink) -> None:
    node = await superlink.online_node()
    run = await superlink.start_run()

    async def get_run(run_id: int) -> common.Run:
        request = common.GetRunRequest(run_id=run_id)
        return (await node.call("GetRun", request, common.GetRunResponse)).run

    async def get_fab(hash_str: str) -> common.Fab:
        request = common.GetFabRequest(run_id=run.run_id, hash_str=hash_str)
        return (await node.call("GetFab", request, common.GetFabResponse)).fab

    with refused(ErrorCode.RUN_STATUS_NOT_ALLOWED):
        await get_run(run.run_id)
    task = await superlink.claim(run.run_id)
    given = await task.pull_input()
    fab_hash = (await get_run(run.run_id)).fab_hash
    assert await get_fab(fab_hash) == given.fab

    with refused(ErrorCode.GET_RUN_FAILED):
        await get_run(5)
    with refused(ErrorCode.GET_FAB_FAILED):
        await get_fab("0" * 64)
    await task.push_output()
    with refused(ErrorCode.RUN_STATUS_NOT_ALLOWED):
        await get_fab(fab_hash)


async def test_a_run_may_send_to_nodes_that_are_or_were_online(superlink: Superlink) -> None:
    run = await superlink.start_run()
    online, offline, gone = [await superlink.online_node() for _ in range(3)]
    await deactivate(offline)
    await leave(gone)
    awaited = await register(superlink, node_key())
    ids = [online.node_id, offline.node_id, gone.node_id, awaited, 99]

    answer = await superlink.ask("CheckNodes", run_id=run.run_id, node_ids=ids)

    assert answer == {"online": [online.node_id], "offline": [offline.node_id]}
    nothing = await superlink.ask("CheckNodes", run_id=5, node_ids=ids)
    assert nothing == {"online": [], "offline": []}


async def test_the_serverapp_sees_the_nodes_that_are_online(superlink: Superlink) -> None:
    online, offline = await superlink.online_node(), await superlink.online_node()
    await deactivate(offline)
    task = await superlink.running_task()

    answer = await task.call("GetNodes", runtime.GetNodesRequest(), runtime.GetNodesResponse)

    [shown] = answer.nodes
    assert (shown.node_id, shown.status, shown.public_key) == (online.node_id, "online", online.key)
    older = await task.call(
        "GetNodes", runtime.GetNodesRequest(), runtime.GetNodesResponse, client_version="1.37.0"
    )
    assert older.nodes == [common.NodeInfo(node_id=online.node_id)]
    await superlink.database.execute("UPDATE task SET type = 'flwr-simulation'")
    with refused(ErrorCode.ENDPOINT_UNAVAILABLE):
        await task.call("GetNodes", runtime.GetNodesRequest(), runtime.GetNodesResponse)


async def test_heartbeats_come_in_batches_and_bring_nodes_back(superlink: Superlink) -> None:
    node = await superlink.online_node()
    await superlink.database.execute("UPDATE node SET status = 'offline'")

    answer = await superlink.ask("Heartbeats", beats=[[node.node_id, 30.0], [5, 30.0]])

    assert answer == {"unknown": [5]}
    assert (await nodes(superlink))[node.node_id].status == "online"
    assert await superlink.ask("Heartbeats", beats=[]) == {"unknown": []}


async def test_a_heartbeat_from_before_its_farewell_does_not_bring_a_node_back(
    superlink: Superlink,
) -> None:
    node = await superlink.online_node()
    await deactivate(node)

    answer = await superlink.ask("Heartbeats", beats=[[node.node_id, 30.0]])

    assert answer == {"unknown": []}
    assert (await nodes(superlink))[node.node_id].status == "offline"
    await superlink.database.execute("UPDATE node SET last_deactivated_at = now() - interval '6 s'")
    await superlink.ask("Heartbeats", beats=[[node.node_id, 30.0]])
    assert (await nodes(superlink))[node.node_id].status == "online"


async def test_a_federation_shows_its_nodes_and_runs(superlink: Superlink) -> None:
    node, run = await superlink.online_node(), await superlink.start_run()

    async def show(name: str) -> common.Federation:
        request = control.ShowFederationRequest(federation_name=name)
        answer = await superlink.call(
            "Control", "ShowFederation", request, control.ShowFederationResponse
        )
        return answer.federation

    listed = await superlink.call(
        "Control",
        "ListFederations",
        control.ListFederationsRequest(),
        control.ListFederationsResponse,
    )
    [federation] = listed.federations
    shown = await show(federation.name)
    assert [one.node_id for one in shown.nodes] == [node.node_id]
    assert [one.run_id for one in shown.runs] == [run.run_id]
    assert [member.account.name for member in shown.members] == ["none"]
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER):
        await show("@none/other")
