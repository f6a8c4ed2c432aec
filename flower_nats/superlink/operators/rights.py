"""Operators' tasks besides accounts: limits, roles in federations, and keys of SuperNodes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flower_nats.broker.hints import Hints
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import MemberRole
from flower_nats.model.quota import EACH, KINDS, BadQuota, Quota, check_limits
from flower_nats.store.accounts import Accounts
from flower_nats.store.audit import note_object
from flower_nats.store.connection import Database, Session, Transaction
from flower_nats.store.federations import Federations
from flower_nats.store.idempotency import once
from flower_nats.store.members import Members
from flower_nats.store.nodes import Nodes
from flower_nats.store.quotas import Quotas
from flower_nats.superlink.api.control import check_key
from flower_nats.superlink.codecs import InternalHandler

log = get_logger(__name__)

Map = Mapping[str, Any]


class OperatorRights:
    """Serves `flower-nats quota`, `flower-nats role` and `flower-nats node`."""

    def __init__(self, database: Database, hints: Hints) -> None:
        self._database = database
        self._hints = hints

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each RPC served here."""
        return {
            "Quotas": self.quotas,
            "SetQuota": self.set_quota,
            "SetMemberRole": self.set_member_role,
            "RotateNodeKey": self.rotate_node_key,
        }

    async def quotas(self, question: Map, caller: Caller) -> Map:
        """{} -> {quotas: [field of `Quota`], use: [field of `Use`]}."""
        quotas = Quotas(self._database)
        return {
            "quotas": [asdict(one) for one in await quotas.all()],
            "use": [asdict(one) for one in await quotas.use()],
        }

    async def set_quota(self, question: Map, caller: Caller) -> Map:
        """{kind, name, change} -> {}: `change` has `runs_at_once`, `run_seconds`, or both."""
        kind, name, change = question["kind"], question["name"], question["change"]
        if kind not in KINDS:
            raise ValueError(f"{kind} is none of {KINDS}")
        try:
            check_limits(**change)
        except BadQuota as exc:
            raise ApiError(ErrorCode.MALFORMED_REQUEST, str(exc), str(exc)) from exc
        limits = [
            f"{field} {'none' if limit is None else f'{limit:g}'}"
            for field, limit in change.items()
        ]
        note_object(f"{kind} {name}, {', '.join(limits)}")

        async def keep(transaction: Transaction) -> bytes:
            await _check_subject(transaction, kind, name)
            former = asdict(await Quotas(transaction).get(kind, name))
            await Quotas(transaction).set(Quota(**{**former, **change}))
            return b""

        await once(self._database, caller.request_id, keep)
        log.info("quota_set", kind=kind, name=name, **change)
        # Waiting runs may begin now.
        await self._hints.tasks_pending()
        return {}

    async def set_member_role(self, question: Map, caller: Caller) -> Map:
        """{federation, account, role} -> {}: change what a member may do; `owner` hands it over."""
        federation, name = question["federation"], question["account"]
        role = MemberRole(question["role"])

        async def keep(transaction: Transaction) -> bytes:
            members = Members(transaction)
            await Federations(transaction).lock(federation)
            member = await members.by_name(federation, name)
            if member is None:
                text = f"{name} is not in {federation}, or this federation does not exist."
                raise ApiError(ErrorCode.ACCOUNT_NOT_A_MEMBER, text, text)
            owner = next(
                one for one in await members.of(federation) if one.role is MemberRole.OWNER
            )
            if role is MemberRole.OWNER:
                await members.set_role(federation, owner.account_id, MemberRole.ADMIN)
            elif member == owner:
                text = f"{name} is the owner. Remedy: first give another account the role owner."
                raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
            await members.set_role(federation, member.account_id, role)
            return b""

        await once(self._database, caller.request_id, keep)
        log.info("member_role_set", federation=federation, member=name, role=str(role))
        await self._hints.accounts_changed()
        return {}

    async def rotate_node_key(self, question: Map, caller: Caller) -> Map:
        """{node_id, public_key} -> {}: replace the key of a node; everything else stays."""
        node_id, public_key = question["node_id"], question["public_key"]
        check_key(public_key)

        async def rotate(transaction: Transaction) -> bytes:
            nodes = Nodes(transaction)
            if not await nodes.rotate_key(node_id, public_key):
                known = await nodes.owner(node_id) is not None
                text = (
                    "A SuperNode has this key already. Remedy: make a new key."
                    if known
                    else f"There is no SuperNode {node_id}."
                )
                code = ErrorCode.PUBLIC_KEY_ALREADY_IN_USE if known else ErrorCode.NODE_NOT_FOUND
                raise ApiError(code, text, text)
            return b""

        await once(self._database, caller.request_id, rotate)
        log.info("node_key_rotated", node_id=node_id)
        # This makes gateways look up the old key again.
        await self._hints.node_changed(node_id)
        return {}


async def _check_subject(session: Session, kind: str, name: str) -> None:
    """Check that the limit's subject exists: a misspelt name would limit nothing."""
    if name == EACH or (kind == "account" and name == "none"):
        return
    if kind == "federation":
        found: object = await Federations(session).get(name)
    else:
        found = await Accounts(session).by_name(name)
    if found is None:
        text = f"There is no {kind} {name}."
        raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
