"""Every call of the Control API, for every role: the outcome is that in the table of rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from flower_nats.model.account import Role
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import Member, MemberRole
from flower_nats.store.members import Members
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.accounts.rights import LEVELS, RIGHTS, About, Level, refusal
from flower_nats.wire.methods import BY_NAME, CONTROL, CallerKind
from harness.rights_page import PAGE, page_with_tables
from tests.integration.people import Person
from tests.integration.superlinks import Superlink, running_superlink

LAB = "@owner/lab"
_OWNED = (About.RUN, About.NODE, About.FEDERATION_NODE, About.MEMBER)


@dataclass
class Scene:
    """A federation with an account of each role and one more, and the things of each account."""

    superlink: Superlink
    people: dict[Level, Person]
    runs: dict[str, int]
    nodes: dict[str, int]
    series_id: int

    def fields(self, name: str, person: Person, *, is_own: bool) -> dict[str, Any]:
        """Return a request about something in the federation."""
        whose = person.name if is_own else "another"
        values = {
            "run_id": self.runs[whose],
            "node_id": self.nodes[whose],
            "series_id": self.series_id,
            "account_name": "" if is_own else "another",
            "federation_name": LAB,
            "federation_id": LAB,
            "federation": LAB,
        }
        known = BY_NAME[("Control", name)].request.DESCRIPTOR.fields_by_name
        return {field: value for field, value in values.items() if field in known}


async def scene_in(superlink: Superlink) -> Scene:
    owner = await Person.come(superlink, "owner")
    await owner.create("lab")
    people = {Level.OWNER: owner}
    roles = {level: role for role, level in LEVELS.items() if role is not MemberRole.OWNER}
    for level, role in roles.items():
        people[level] = await Person.come(superlink, role.value)
        await owner.invite(people[level], LAB)
    another = await Person.come(superlink, "another")
    await owner.invite(another, LAB)
    # This person is an owner, too, but of another federation.
    people[Level.ACCOUNT] = await Person.come(superlink, "stranger")
    await people[Level.ACCOUNT].create("own")
    people[Level.OPERATOR] = await Person.come(superlink, "operator", Role.OPERATOR)
    runs, nodes = {}, {}
    for person in (*people.values(), another):
        run_id = await owner.start_run(LAB)
        await superlink.database.execute(
            "UPDATE run SET account_id = %(account)s WHERE run_id = %(run_id)s",
            account=person.account_id,
            run_id=run_id,
        )
        runs[person.name] = run_id
        nodes[person.name] = (await person.register()).node_id
        await Members(superlink.database).add_node(LAB, nodes[person.name])
    for level, role in roles.items():
        await people[level].let_in(LAB, role)
    [series] = {run.series_id for run in (await owner.show(LAB)).runs if run.run_id == run_id}
    return Scene(superlink, people, runs, nodes, series)


@pytest.fixture
async def superlink(nats_url: str, pg_dsn: str) -> AsyncIterator[Superlink]:
    async with running_superlink(nats_url, pg_dsn, accounts=True) as superlink:
        yield superlink


def cases() -> list[tuple[str, Level, bool]]:
    return [
        (name, level, is_own)
        for name, right in RIGHTS.items()
        for level in Level
        if level is not Level.ANYBODY
        for is_own in ((True, False) if right.about in _OWNED else (True,))
    ]


async def outcome(scene: Scene, name: str, level: Level, *, is_own: bool) -> ErrorCode | None:
    """Return the outcome of a call; a permitted call is not made, to keep the scene unchanged."""
    person = scene.people[level]
    fields = scene.fields(name, person, is_own=is_own)
    account = person.logged_in.account
    caller = Caller(
        account_id=account.account_id,
        account_name=account.name,
        is_operator=account.is_operator,
    )
    request = BY_NAME[("Control", name)].request(**fields)
    try:
        await Guard(scene.superlink.database).check(name, request, caller)
    except ApiError as exc:
        assert await refusal_of_superlink(scene, name, person, fields) is exc.code, name
        return exc.code
    return None


async def refusal_of_superlink(
    scene: Scene, name: str, person: Person, fields: dict[str, Any]
) -> ErrorCode | None:
    try:
        if BY_NAME[("Control", name)].streams:
            token = person.logged_in.token_hash
            await scene.superlink.ask("FollowRun", account_token=token, session="", **fields)
        else:
            await person.call(name, **fields)
    except ApiError as exc:
        return exc.code
    return None


async def test_what_a_call_takes_is_what_the_table_says(superlink: Superlink) -> None:
    scene = await scene_in(superlink)

    outcomes = {case: await outcome(scene, case[0], case[1], is_own=case[2]) for case in cases()}

    said = {
        (name, level, is_own): refusal(RIGHTS[name], level, is_own=is_own)
        for name, level, is_own in cases()
    }
    assert outcomes == said


async def test_what_is_not_there_looks_like_what_is_not_to_be_seen(superlink: Superlink) -> None:
    stranger = await Person.come(superlink, "stranger")
    operator = await Person.come(superlink, "operator", Role.OPERATOR)
    missing = {"run_id": 5, "node_id": 5, "series_id": 5, "federation": "@no/one"}
    for name, right in RIGHTS.items():
        if right.about is About.ITSELF:
            continue
        known = BY_NAME[("Control", name)].request.DESCRIPTOR.fields_by_name
        fields = {
            field: missing["federation" if "federation" in field else field]
            for field in known
            if field in missing or field in ("federation_name", "federation_id")
        }
        for person in (stranger, operator):
            scene = Scene(superlink, {}, {}, {}, 5)
            assert await refusal_of_superlink(scene, name, person, fields) is right.hidden, name


def test_every_call_has_a_line_in_the_table() -> None:
    assert set(RIGHTS) == {method.name for method in CONTROL}
    for method in CONTROL:
        is_open = RIGHTS[method.name].takes is Level.ANYBODY
        assert is_open == (method.caller is CallerKind.ANYBODY), method.name


def test_docs_have_the_tables_as_they_are() -> None:
    page = PAGE.read_text("utf-8")

    assert page == page_with_tables(page), "run `python -m harness.rights_page`"


async def test_a_role_is_good_in_its_own_federation_alone(superlink: Superlink) -> None:
    ana, ben = await Person.come(superlink, "ana"), await Person.come(superlink, "ben")
    lab = await ana.create("lab")
    await Members(superlink.database).add(lab, Member(ben.account_id, "ben", MemberRole.ADMIN))
    own = await ana.create("own")

    assert await ben.federations() == [lab]
    with pytest.raises(ApiError) as refused:
        await ben.show(own)
    assert refused.value.code is ErrorCode.FEDERATION_NOT_FOUND_OR_NOT_MEMBER
