"""Two hospitals and a university share one runtime: the short form of the test with stock commands."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from flower_nats.model.account import Role
from flower_nats.model.errors import ErrorCode
from tests.integration.people import Person
from tests.integration.superlinks import Superlink, refused, running_superlink
from tests.integration.test_accounts import flower_nats

STUDY, OWN = "@uni/study", "@south/own"


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        yield superlink


async def test_each_sees_its_own_and_the_trail_says_who_did_what(
    superlink: Superlink, nats_url: str
) -> None:
    uni, north, south, intern = [
        await Person.come(superlink, name) for name in ("uni", "north", "south", "intern")
    ]
    chief = await Person.come(superlink, "chief", Role.OPERATOR)
    await uni.create("study")
    await south.create("own")
    for hospital in (north, south):
        await uni.invite(hospital, STUDY)
    invitation = {"federation_name": STUDY, "invitee_account_name": "intern"}
    await uni.call("CreateInvitation", **invitation)
    at_north, at_south = [await one.register(STUDY) for one in (north, south)]
    only_souths = await south.register(OWN)
    studied, own = await uni.start_run(STUDY), await south.start_run(OWN)

    await uni.call("RevokeInvitation", **invitation)
    with refused(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE):
        await intern.call("AcceptInvitation", federation_name=STUDY)

    nodes = {at_north.node_id, at_south.node_id, only_souths.node_id}
    seen: list[tuple[Person, set[int], set[int], set[str]]] = [
        (uni, {studied}, set(), {STUDY}),
        (north, {studied}, {at_north.node_id}, {STUDY}),
        (south, {studied, own}, nodes - {at_north.node_id}, {STUDY, OWN}),
        (intern, set(), set(), set()),
        (chief, {studied, own}, nodes, {STUDY, OWN, "@none/default"}),
    ]
    for person, runs, own_nodes, federations in seen:
        assert await person.runs() == runs, person.name
        listed = (await person.call("ListNodes")).nodes_info
        assert {one.node_id for one in listed} == own_nodes, person.name
        assert set(await person.federations()) == federations, person.name
    for stranger, run_id in ((intern, studied), (north, own), (uni, own)):
        with refused(ErrorCode.RUN_ID_NOT_FOUND):
            await stranger.call("StopRun", run_id=run_id)

    lines = (await flower_nats("audit", "--json", "--nats", nats_url)).stdout.splitlines()
    trail = {
        (one["account_name"], one["action"], one["object"], one["outcome"])
        for one in map(json.loads, lines)
    }
    assert {
        ("uni", "CreateInvitation", f"{STUDY}, account intern", "done"),
        ("uni", "RevokeInvitation", f"{STUDY}, account intern", "done"),
        ("intern", "AcceptInvitation", STUDY, "FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE"),
        ("south", "StartRun", f"run {own}, {OWN}", "done"),
        ("north", "StopRun", f"run {own}", "RUN_ID_NOT_FOUND"),
    } <= trail, trail
    verified = await flower_nats("audit", "--verify", "--nats", nats_url)
    assert verified.returncode == 0, verified
