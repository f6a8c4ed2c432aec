"""The cost of accounts in database queries: one query for the caller, and one for a role."""

from __future__ import annotations

import time
import uuid

import pytest
from google.protobuf.message import Message as ProtoMessage

from flower_nats.broker.connection import Connection
from flower_nats.model.account import Role
from flower_nats.model.caller import Caller
from flower_nats.model.federation import DEFAULT_FEDERATION, Member, MemberRole
from flower_nats.settings import SuperlinkSettings
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.members import Members
from flower_nats.superlink.wiring import handlers, watches
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from harness.accounts import LoggedIn, log_in
from harness.fabs import make_fab


class Counted:
    """The part of a superlink that serves calls, without its background work."""

    def __init__(self, database: Database, connection: Connection, *, accounts: bool) -> None:
        settings = SuperlinkSettings(
            nats=(), database="", accounts=accounts, supernode_self_registration=True
        )
        watched = watches(settings, database, connection)
        self._handlers = handlers(settings, database, connection, watched)
        self.answer = b""

    async def questions(self, name: str, request: ProtoMessage, caller: Caller) -> list[str]:
        """Serve a call; return its database queries."""
        service = "Fleet" if type(request).__module__ == fleet.__name__ else "Control"
        asked: list[str] = []
        run = Transaction._run

        async def noted(self: Transaction, query: str, parameters: object) -> object:
            asked.append(query)
            return await run(self, query, parameters)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Transaction, "_run", noted)
            self.answer = await self._handlers[service, name](request.SerializeToString(), caller)
        return asked


def caller(person: LoggedIn | None = None) -> Caller:
    """Return a gateway's description of a caller."""
    token = person.token_hash if person else b""
    return Caller(
        account_token=token, request_id=uuid.uuid4().hex, answer_by=time.monotonic() + 30.0
    )


@pytest.mark.parametrize("role", list(Role), ids=str)
async def test_a_control_call_asks_who_is_calling_once_and_for_a_role_once(
    database: Database, connection: Connection, role: Role
) -> None:
    with_accounts = Counted(database, connection, accounts=True)
    without = Counted(database, connection, accounts=False)
    person = await log_in(database, "ana", role)
    member = Member(person.account.account_id, "ana", MemberRole.MEMBER)
    await Members(database).add(DEFAULT_FEDERATION, member)
    start = control.StartRunRequest(
        fab=common.Fab(content=make_fab()), federation=DEFAULT_FEDERATION
    )
    started = await without.questions("StartRun", start, caller())
    run_id = control.StartRunResponse.FromString(without.answer).run_id
    calls: dict[str, tuple[ProtoMessage, int]] = {
        # Each call, with its allowed number of queries beside the one for the caller.
        "ListNodes": (control.ListNodesRequest(), 0),
        "ListFederations": (control.ListFederationsRequest(), 0),
        "ListRuns": (control.ListRunsRequest(run_id=run_id), 0),
        "ShowFederation": (control.ShowFederationRequest(federation_name=DEFAULT_FEDERATION), 1),
    }

    for name, (request, for_role) in calls.items():
        plain = await without.questions(name, request, caller())
        asked = await with_accounts.questions(name, request, caller(person))
        assert 0 < len(asked) - len(plain) <= 1 + for_role, (name, asked)
        assert sum("FROM account_token" in one for one in asked) == 1
    again = await with_accounts.questions("StartRun", start, caller(person))
    assert len(again) <= len(started) + 2


async def test_a_fleet_call_asks_nothing_more_with_accounts(
    database: Database, connection: Connection
) -> None:
    asked: list[list[list[str]]] = []
    for accounts in (False, True):
        served, key = Counted(database, connection, accounts=accounts), uuid.uuid4().bytes
        node = Caller(public_key=key)
        life = [
            await served.questions(
                "RegisterNode", fleet.RegisterNodeFleetRequest(public_key=key), node
            )
        ]
        node_id = fleet.RegisterNodeFleetResponse.FromString(served.answer).node_id
        node = Caller(public_key=key, node_id=node_id)
        calls: dict[str, ProtoMessage] = {
            "ActivateNode": fleet.ActivateNodeRequest(public_key=key, heartbeat_interval=30),
            "DeactivateNode": fleet.DeactivateNodeRequest(node_id=node_id),
            "UnregisterNode": fleet.UnregisterNodeFleetRequest(node_id=node_id),
        }
        life += [await served.questions(name, call, node) for name, call in calls.items()]
        asked.append(life)

    without, with_accounts = asked
    assert with_accounts == without
    assert not any("account_" in query for life in asked for one in life for query in one)
