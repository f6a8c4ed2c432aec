"""The guard in front of the Control API: it refuses callers without the right to a call."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from flower_nats.model.caller import NO_ACCOUNT_ID, Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.federation import DEFAULT_FEDERATION, MemberRole
from flower_nats.store.connection import Database
from flower_nats.store.federations import Federations
from flower_nats.store.idempotency import was_answered
from flower_nats.store.members import Members
from flower_nats.store.nodes import Nodes
from flower_nats.store.series import SeriesStore
from flower_nats.superlink.accounts.rights import (
    LEVELS,
    RIGHTS,
    About,
    Level,
    Right,
    Unnamed,
    refusal,
)
from flower_nats.superlink.codecs import ProtoHandler

_MAY_RUN = (MemberRole.OWNER, MemberRole.ADMIN, MemberRole.MEMBER)

_FEDERATION_FIELDS = ("federation_name", "federation_id", "federation")
"""The fields for a request's federation; no request has two of them."""


_A = {
    Level.VIEWER: "a viewer",
    Level.MEMBER: "a member",
    Level.ADMIN: "an admin",
    Level.OWNER: "the owner",
}

_WHO = {
    Level.VIEWER: "those who are in it",
    Level.MEMBER: "members, admins and the owner",
    Level.ADMIN: "admins and the owner",
    Level.OWNER: "the owner",
    Level.OPERATOR: "an operator of the runtime",
}


@dataclass(frozen=True)
class _Place:
    """Where a call happens."""

    level: Level
    """The caller's level there."""

    is_own: bool = True
    """Whether the object belongs to the caller, or to nobody."""

    name: str = ""
    """The federation."""


class Guard:
    """Admits the calls of the Control API that the table of rights allows."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._federations = Federations(database)
        self._members = Members(database)
        self._nodes = Nodes(database)
        self._series = SeriesStore(database)
        self._places: dict[About, Callable[[Any, Caller], Awaitable[_Place | None]]] = {
            About.ITSELF: self._itself,
            About.FEDERATION: self._of_federation,
            About.MEMBER: self._of_member,
            About.FEDERATION_NODE: self._of_federation_node,
            About.NODE: self._of_node,
            About.RUN: self._of_run,
            About.SERIES: self._of_series,
        }

    def guard(self, name: str, handler: ProtoHandler) -> ProtoHandler:
        """Wrap a handler: it gets only permitted calls, and each request names its federation."""

        async def serve(request: Any, caller: Caller) -> ProtoMessage:
            try:
                await self.check(name, request, caller)
            except ApiError:
                # A gateway repeats a call if its answer was lost, and the call itself may have
                # ended the right: for example, an account left its federation.
                if not await was_answered(self._database, caller.request_id):
                    raise
            return await handler(request, caller)

        return serve

    async def check(self, name: str, request: Any, caller: Caller) -> None:
        """Raise `ApiError` unless the caller may make this call."""
        right = RIGHTS[name]
        if right.takes is Level.ANYBODY:
            return
        if _is_unnamed(right, request):
            if right.unnamed is Unnamed.ALL:
                return
            if right.unnamed is Unnamed.REFUSED:
                raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, name)
            _name(request, await self._own_federation(caller))
        place = await self._places[right.about](request, caller)
        _judge(right, place, request)

    async def _own_federation(self, caller: Caller) -> str:
        """Return the federation of a caller that names none."""
        if caller.account_id == NO_ACCOUNT_ID:
            return DEFAULT_FEDERATION
        found = await self._members.federations(caller.account_id, _MAY_RUN)
        if len(found) == 1:
            return found[0]
        if not found and caller.is_operator:
            return DEFAULT_FEDERATION
        names = ", ".join(found[:10])
        text = (
            "You may start runs in several federations. Name one of them (--federation, or "
            f"`federation` of the connection): {names}."
            if found
            else (
                "There is no federation in which you may start runs. Remedy: `flwr federation "
                "create NAME`, or ask for an invitation to a federation."
            )
        )
        raise ApiError(ErrorCode.FEDERATION_NOT_SPECIFIED, caller.account_name, text)

    async def _level(self, federation: str, caller: Caller) -> Level:
        if caller.is_operator:
            return Level.OPERATOR
        return _level(await self._members.role(federation, caller.account_id), caller)

    async def _itself(self, request: Any, caller: Caller) -> _Place:
        return _Place(Level.OPERATOR if caller.is_operator else Level.ACCOUNT)

    async def _of_federation(self, request: Any, caller: Caller) -> _Place | None:
        name = _named(request)
        if caller.is_operator and await self._federations.get(name) is None:
            return None
        return _Place(await self._level(name, caller), name=name)

    async def _of_member(self, request: Any, caller: Caller) -> _Place | None:
        place = await self._of_federation(request, caller)
        wanted = request.account_name.lower()
        is_own = wanted in ("", caller.account_name.lower())
        return place and _Place(place.level, is_own, place.name)

    async def _of_federation_node(self, request: Any, caller: Caller) -> _Place | None:
        place = await self._of_federation(request, caller)
        if place is None or place.level < Level.VIEWER:
            return place
        owner = await self._nodes.owner(request.node_id)
        is_own = owner == caller.account_id
        is_seen = owner is not None and (
            is_own
            or place.level is Level.OPERATOR
            or await self._members.has_node(place.name, request.node_id)
        )
        if not is_seen:
            raise ApiError(ErrorCode.NODE_NOT_FOUND_OR_NOT_OWNER, f"node {request.node_id}")
        return _Place(place.level, is_own, place.name)

    async def _of_node(self, request: Any, caller: Caller) -> _Place | None:
        owner = await self._nodes.owner(request.node_id)
        if owner is None:
            return None
        level = Level.OPERATOR if caller.is_operator else Level.ACCOUNT
        return _Place(level, owner == caller.account_id)

    async def _of_run(self, request: Any, caller: Caller) -> _Place | None:
        run = await self._members.of_run(request.run_id, caller.account_id)
        if run is None:
            return None
        level = _level(run.role, caller)
        return _Place(level, run.owner == caller.account_id, run.federation)

    async def _of_series(self, request: Any, caller: Caller) -> _Place | None:
        found = await self._series.find(series_id=request.series_id)
        if not found:
            return None
        name = found[0].federation
        return _Place(await self._level(name, caller), name=name)


def _level(role: MemberRole | None, caller: Caller) -> Level:
    if caller.is_operator:
        return Level.OPERATOR
    return Level.ACCOUNT if role is None else LEVELS[role]


def _judge(right: Right, place: _Place | None, request: Any) -> None:
    what = type(request).__name__
    if place is None:
        raise ApiError(right.hidden or ErrorCode.NO_PERMISSIONS, what)
    code = refusal(right, place.level, is_own=place.is_own)
    if code is not None:
        needed = right.takes if place.level < right.takes else right.of_others
        is_seen = code is ErrorCode.NO_PERMISSIONS and needed is not None
        raise ApiError(code, what, _remedy(place, needed) if is_seen and needed else None)


def _remedy(place: _Place, needed: Level) -> str:
    whose = "" if place.is_own else " to what belongs to another account"
    return f"You are {_A[place.level]} of {place.name}. Only {_WHO[needed]} may do this{whose}."


def _is_unnamed(right: Right, request: Any) -> bool:
    if right.about is About.RUN:
        return right.unnamed is Unnamed.ALL and not request.HasField("run_id")
    if right.about in (About.FEDERATION, About.MEMBER, About.FEDERATION_NODE):
        field = _field(request)
        if right.unnamed is Unnamed.ALL and request.DESCRIPTOR.fields_by_name[field].has_presence:
            return not request.HasField(field)
        return not _named(request)
    return False


def _field(request: Any) -> str:
    fields = request.DESCRIPTOR.fields_by_name
    return next(name for name in _FEDERATION_FIELDS if name in fields)


def _named(request: Any) -> str:
    return str(getattr(request, _field(request)))


def _name(request: Any, federation: str) -> None:
    setattr(request, _field(request), federation)
