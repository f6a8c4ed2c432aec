"""Federations of SuperNodes: accounts and nodes join and leave; a run reaches only its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from flower_nats.model.account import Role
from flower_nats.model.errors import ErrorCode
from flower_nats.model.federation import DEFAULT_FEDERATION, MemberRole
from flower_nats.store.nodes import Nodes
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import runtime_pb2 as runtime
from tests.integration.people import Person
from tests.integration.superlinks import Superlink, Task, refused, running_superlink

LAB = "@ana/lab"


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(
        nats_url, pg_dsn, accounts=True, supernode_self_registration=True
    ) as superlink:
        yield superlink


@pytest.fixture
async def ana(superlink: Superlink) -> Person:
    """A person with a federation."""
    ana = await Person.come(superlink, "ana")
    await ana.create("lab", description="of two hospitals")
    return ana


@pytest.fixture
async def ben(superlink: Superlink) -> Person:
    """Another person."""
    return await Person.come(superlink, "Ben")


async def nodes_of(task: Task) -> set[int]:
    """Return the nodes that a ServerApp samples from."""
    answer = await task.call("GetNodes", runtime.GetNodesRequest(), runtime.GetNodesResponse)
    return {node.node_id for node in answer.nodes}


async def running(person: Person, federation: str) -> Task:
    run_id = await person.start_run(federation)
    task = await person.superlink.claim(run_id)
    await task.pull_input()
    return task


async def test_a_federation_is_shown_to_its_members_alone(ana: Person, ben: Person) -> None:
    [listed] = (await ana.call("ListFederations")).federations
    shown = await ana.show(LAB)

    assert (listed.name, listed.description, listed.simulation) == (LAB, "of two hospitals", False)
    assert [(one.account.name, one.role) for one in shown.members] == [("ana", "owner")]
    assert (shown.member_count, shown.can_invite_members, shown.can_add_supernodes) == (
        1,
        True,
        True,
    )
    assert await ben.federations() == []
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER):
        await ben.show(LAB)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION):
        await ben.start_run(LAB)


async def test_who_is_invited_comes_in_and_who_is_not_does_not(ana: Person, ben: Person) -> None:
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE):
        await ben.call("AcceptInvitation", federation_name=LAB)
    # The case of letters in the name does not matter.
    await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="ben")
    with refused(ErrorCode.INVITE_ALREADY_EXISTS):
        await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="Ben")
    [received] = (await ben.call("ListInvitations")).received_invitations
    assert await ben.federations() == []

    await ben.call("AcceptInvitation", federation_name=LAB)

    assert (received.federation_name, received.inviter.name, received.status) == (
        *(LAB, "ana"),
        "pending",
    )
    [created] = (await ana.call("ListInvitations")).created_invitations
    assert (created.invitee.name, created.status) == ("Ben", "accepted")
    assert created.created_at <= created.status_changed_at
    members = (await ben.show(LAB)).members
    assert [(one.account.name, one.role) for one in members] == [
        ("ana", "owner"),
        ("Ben", "member"),
    ]
    with refused(ErrorCode.ACCOUNT_ALREADY_MEMBER):
        await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="Ben")
    with refused(ErrorCode.ACCOUNTS_NOT_FOUND, "no account"):
        await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="nobody")


async def test_an_invitation_that_was_revoked_or_rejected_is_good_no_more(
    ana: Person, ben: Person
) -> None:
    await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="Ben")
    await ana.call("RevokeInvitation", federation_name=LAB, invitee_account_name="Ben")
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE):
        await ben.call("AcceptInvitation", federation_name=LAB)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE):
        await ana.call("RevokeInvitation", federation_name=LAB, invitee_account_name="Ben")

    await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="Ben")
    await ben.call("RejectInvitation", federation_name=LAB)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE):
        await ben.call("AcceptInvitation", federation_name=LAB)

    statuses = [one.status for one in (await ben.call("ListInvitations")).received_invitations]
    assert statuses == ["revoked", "rejected"]
    assert await ben.federations() == []


async def test_a_run_sees_and_reaches_the_nodes_of_its_federation_alone(
    superlink: Superlink, ana: Person, ben: Person
) -> None:
    own = await ben.create("own")
    await ana.invite(ben, LAB)
    in_lab, in_both, elsewhere = (
        await ana.register(LAB),
        await ben.register(LAB),
        await ben.register(own),
    )
    await ben.call("AddNodeToFederation", federation_name=own, node_id=in_both.node_id)
    nowhere, without_account = await ben.register(), await superlink.online_node()
    everywhere = [one.node_id for one in (in_lab, in_both, elsewhere, nowhere, without_account)]

    task = await running(ana, LAB)

    assert await nodes_of(task) == {in_lab.node_id, in_both.node_id}
    known = await superlink.ask("CheckNodes", run_id=task.run_id, node_ids=everywhere)
    assert set(known["online"]) == {in_lab.node_id, in_both.node_id}
    assert not known["offline"]
    request = common.GetRunRequest(run_id=task.run_id, node=common.Node(node_id=in_lab.node_id))
    await in_lab.call("GetRun", request, common.GetRunResponse)
    with refused(ErrorCode.GET_RUN_FAILED):
        await elsewhere.call("GetRun", request, common.GetRunResponse)
    assert await nodes_of(await running(ben, own)) == {in_both.node_id, elsewhere.node_id}
    assert {one.node_id for one in (await ben.show(LAB)).nodes} == {in_lab.node_id, in_both.node_id}


async def test_a_node_is_taken_out_by_its_account_and_by_admins(ana: Person, ben: Person) -> None:
    await ana.invite(ben, LAB)
    of_ana, of_ben = await ana.register(LAB), await ben.register(LAB)
    task = await running(ben, LAB)

    with refused(ErrorCode.SUPERNODE_ALREADY_IN_FEDERATION):
        await ben.call("AddNodeToFederation", federation_name=LAB, node_id=of_ben.node_id)
    with refused(ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER):
        await ben.call("AddNodeToFederation", federation_name=LAB, node_id=of_ana.node_id)
    with refused(ErrorCode.NO_PERMISSIONS):
        await ben.call("RemoveNodeFromFederation", federation_name=LAB, node_id=of_ana.node_id)
    pairs = [(task.run_id, of_ana.node_id), (task.run_id, of_ben.node_id)]
    nodes = Nodes(ana.superlink.database)
    assert await nodes.reachable(pairs) == set(pairs)
    await ana.call("RemoveNodeFromFederation", federation_name=LAB, node_id=of_ben.node_id)

    assert await nodes_of(task) == {of_ana.node_id}
    # Its unanswered instruction gets an error reply, because the node is not reachable.
    assert await nodes.reachable(pairs) == {pairs[0]}
    with refused(ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER):
        await ben.call("RemoveNodeFromFederation", federation_name=LAB, node_id=of_ben.node_id)


async def test_who_is_removed_takes_nodes_and_runs_along(ana: Person, ben: Person) -> None:
    await ana.invite(ben, LAB)
    await ben.register(LAB)
    of_ana, of_ben = await ana.start_run(LAB), await ben.start_run(LAB)
    assert await ben.runs() == {of_ana, of_ben}

    for _ in range(2):
        # The second call is the repeated question of a gateway that lost the answer.
        await ana.call(
            "RemoveAccountFromFederation",
            request_id="one call",
            federation_name=LAB,
            account_name="Ben",
        )

    shown = await ana.show(LAB)
    assert [one.account.name for one in shown.members] == ["ana"]
    assert not shown.nodes
    status = {run.run_id: run.status.sub_status for run in shown.runs}
    assert status == {of_ana: "", of_ben: "stopped"}
    assert await ben.runs() == set()
    with refused(ErrorCode.RUN_ID_NOT_FOUND):
        await ben.call("ListRuns", run_id=of_ben)


async def test_a_member_leaves_and_the_owner_stays(ana: Person, ben: Person) -> None:
    await ana.invite(ben, LAB)

    with refused(ErrorCode.NO_PERMISSIONS):
        await ben.call("RemoveAccountFromFederation", federation_name=LAB, account_name="ana")
    for _ in range(2):
        await ben.call("RemoveAccountFromFederation", request_id="leave", federation_name=LAB)

    assert await ben.federations() == []
    with refused(ErrorCode.FORBIDDEN_ACTION, "archive"):
        await ana.call("RemoveAccountFromFederation", federation_name=LAB)
    with refused(ErrorCode.ACCOUNT_NOT_A_MEMBER):
        await ana.call("RemoveAccountFromFederation", federation_name=LAB, account_name="Ben")


async def test_an_archived_federation_shows_what_was_and_takes_nothing_more(
    ana: Person, ben: Person
) -> None:
    run_id = await ana.start_run(LAB)
    await ana.call("CreateInvitation", federation_name=LAB, invitee_account_name="Ben")

    for _ in range(2):
        await ana.call("ArchiveFederation", request_id="archive", federation_name=LAB)

    shown = await ana.show(LAB)
    assert shown.archived
    assert [(run.run_id, run.status.sub_status) for run in shown.runs] == [(run_id, "stopped")]
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION):
        await ana.start_run(LAB)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE):
        await ben.call("AcceptInvitation", federation_name=LAB)
    with refused(ErrorCode.FEDERATION_ALREADY_EXISTS):
        await ana.create("lab")


async def test_a_run_that_names_no_federation_is_of_the_only_one(ana: Person, ben: Person) -> None:
    assert await ana.start_run() in await ana.runs()
    [run] = (await ana.call("ListRuns")).run_dict.values()
    assert (run.federation, run.account_name) == (LAB, "ana")

    await ana.create("second")

    with refused(ErrorCode.FEDERATION_NOT_SPECIFIED, "@ana/lab, @ana/second"):
        await ana.start_run()
    with refused(ErrorCode.FEDERATION_NOT_SPECIFIED, "flwr federation create"):
        await ben.start_run()


async def test_a_federation_for_simulations_takes_no_node(ana: Person) -> None:
    simulated = await ana.create("simulated", simulation=True)
    node = await ana.register()

    with refused(ErrorCode.FORBIDDEN_ACTION, "simulated"):
        await ana.call("AddNodeToFederation", federation_name=simulated, node_id=node.node_id)
    run_id = await ana.start_run(simulated)

    assert (await ana.superlink.claim(run_id)).task_type == "flwr-simulation"


async def test_an_operator_sees_all_and_has_the_federation_of_those_without_accounts(
    superlink: Superlink, ana: Person
) -> None:
    operator = await Person.come(superlink, "op", Role.OPERATOR)
    of_ana, without_account = await ana.register(LAB), await superlink.online_node()
    run_id = await ana.start_run(LAB)

    assert await operator.federations() == [DEFAULT_FEDERATION, LAB]
    assert await operator.runs() == {run_id}
    listed = (await operator.call("ListNodes")).nodes_info
    assert {one.node_id for one in listed} == {of_ana.node_id, without_account.node_id}
    await operator.call("StopRun", run_id=run_id)
    task = await running(operator, "")
    assert await nodes_of(task) == {without_account.node_id}
    assert [one.node_id for one in (await ana.call("ListNodes")).nodes_info] == [of_ana.node_id]


async def test_a_run_is_stopped_by_who_started_it_and_by_admins(
    superlink: Superlink, ana: Person, ben: Person
) -> None:
    eva = await Person.come(superlink, "eva")
    for person in (ben, eva):
        await ana.invite(person, LAB)
    first, second = await ben.start_run(LAB), await ben.start_run(LAB)

    with refused(ErrorCode.NO_PERMISSIONS, "member"):
        await eva.call("StopRun", run_id=first)
    await ben.call("StopRun", run_id=first)
    await eva.let_in(LAB, MemberRole.ADMIN)
    await eva.call("StopRun", run_id=second)
    await eva.let_in(LAB, MemberRole.VIEWER)

    assert await eva.runs() == {first, second}
    with refused(ErrorCode.NO_PERMISSIONS, "viewer"):
        await eva.start_run(LAB)


async def test_without_accounts_one_has_federations_of_nodes_as_well(
    nats_url: str, pg_dsn: str
) -> None:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        request = control.CreateFederationRequest(federation_name="some")
        created = await superlink.call(
            "Control", "CreateFederation", request, control.CreateFederationResponse
        )
        some = created.federation.name
        inside, outside = await superlink.online_node(), await superlink.online_node()
        add = control.AddNodeToFederationRequest(federation_name=some, node_id=inside.node_id)
        await superlink.call(
            "Control", "AddNodeToFederation", add, control.AddNodeToFederationResponse
        )
        of_some = await superlink.claim((await superlink.start_run(federation=some)).run_id)
        of_default = await superlink.claim((await superlink.start_run()).run_id)

        assert await nodes_of(of_some) == {inside.node_id}
        assert await nodes_of(of_default) == {inside.node_id, outside.node_id}
