"""Nodes in the database."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from flower_nats.model.ids import new_id
from flower_nats.model.node import Node
from flower_nats.model.states import FAREWELL_SECONDS, HEARTBEAT_PATIENCE, NodeStatus
from flower_nats.store.connection import Row, Session
from flower_nats.store.queries import load

_SQL = load("nodes")

_FIELDS = tuple(Node.__dataclass_fields__)

DEAF_AFTER = 7.5
"""Seconds without a gateway's announcement after which silence proves nothing about a node."""

ABSENCE = 80.0
"""Seconds for which a silent gateway excuses the nodes and tasks that it was the last to hear.

Longer than a stop from which the gateway may come back (70 s). Shorter than 90 s: a run that lost
its ServerApp together with its gateway has to end in that time."""

_LATE_SECONDS = 5
"""Seconds after a node's farewell in which a heartbeat does not bring it back: gateways collect
heartbeats, so an earlier one may come after the farewell."""


_HEARD_SOON = 5.0
"""Seconds beyond the heartbeat interval in which a node must be heard after one of its processes
left."""

RETURN_SECONDS = 25.0
"""Seconds from the end of an outage within which live SuperNodes are heard again: stock SuperNodes
try again after 20 s at most (flwr 1.42 `common/constant.py` MAX_RETRY_DELAY).
"""

UNSEEN_SECONDS = 7 * 24 * 3600.0
"""Seconds offline after which a node that has registered itself is forgotten. A stock SuperNode
registers itself with a key that exists only in memory, so it never comes back after the end of its
process. But a machine may sleep for some days."""

_UNSEEN_NODES = 100_000
"""The most offline nodes of one status that have registered themselves. With more, the oldest are
forgotten at once, because anyone who can connect may register."""


@dataclass(frozen=True)
class Resolved:
    """The node of a key."""

    node_id: int
    registered_by_account: bool
    """Whether an account registered the key; otherwise the node registered itself."""
    has_left: bool
    """Whether it was unregistered within the last `FAREWELL_SECONDS`."""


@dataclass(frozen=True)
class NodeSign:
    """A node, and its last sign of life."""

    node_id: int
    status: str
    name: str | None
    location: str | None
    version: str
    """The version of flwr that it reports, empty if it reports none."""
    address: str
    """The address from which it came online; empty if unknown."""
    is_unheard: bool
    """Whether it was online before an outage of the runtime, and was not heard since."""
    heard_at: datetime | None
    """When its last heartbeat was heard; None after a farewell, or if it was never online."""


_SIGN_FIELDS = tuple(NodeSign.__dataclass_fields__)


class Nodes:
    """The nodes of this runtime."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def register(
        self,
        public_key: bytes,
        owner_id: str,
        owner_name: str,
        heartbeat_interval: float,
        *,
        by_account: bool = False,
        name: str | None = None,
        location: str | None = None,
    ) -> int | None:
        """Store a new node and return its id; None if its key has a node or another owner.

        `by_account` says that the owner vouches for the key. An owner may also vouch, once, for a
        node that has registered itself, which keeps its id. The key of an unregistered node may get
        a new node: by the account that had registered it or, without such an account, by any holder
        of the key.
        """
        row = await self._session.fetch_one(
            _SQL["register"],
            node_id=new_id(),
            public_key=public_key,
            owner_id=owner_id,
            owner_name=owner_name,
            heartbeat_interval=heartbeat_interval,
            by_account=by_account,
            name=name,
            location=location,
        )
        return _node_id(row)

    async def resolve(self, public_key: bytes) -> Resolved | None:
        """Return the node of a key, None if there is none or it was unregistered some time ago."""
        row = await self._session.fetch_one(
            _SQL["resolve"], public_key=public_key, farewell=FAREWELL_SECONDS
        )
        return None if row is None else Resolved(**row)

    async def activate(
        self,
        public_key: bytes,
        heartbeat_interval: float,
        gateway: str | None = None,
        *,
        only_registered: bool = False,
        version: str = "",
        address: str = "",
    ) -> int | None:
        """Bring the node of a key online, heard by this gateway; None if there is no such node.

        `only_registered`: return None also for a node that has registered itself. `version` and
        `address` are for people to read.
        """
        row = await self._session.fetch_one(
            _SQL["activate"],
            public_key=public_key,
            heartbeat_interval=heartbeat_interval,
            patience=HEARTBEAT_PATIENCE,
            gateway=gateway,
            only_registered=only_registered,
            version=version,
            address=address,
        )
        return _node_id(row)

    async def deactivate(self, node_id: int) -> NodeStatus | None:
        """Note that a process of a node has left; return the node's new status.

        None if the node was not online. It stays online if another process with its key has come
        since.
        """
        row = await self._session.fetch_one(_SQL["deactivate"], node_id=node_id, margin=_HEARD_SOON)
        return None if row is None else NodeStatus(row["status"])

    async def rotate_key(self, node_id: int, public_key: bytes) -> bool:
        """Replace a node's key; False if there is no such node, or if a node has the new key."""
        row = await self._session.fetch_one(
            _SQL["rotate_key"], node_id=node_id, public_key=public_key
        )
        return row is not None

    async def unregister(self, node_id: int, owner_id: str | None) -> bool:
        """Remove a node, of one owner or of any, for good; return whether there was one."""
        row = await self._session.fetch_one(_SQL["unregister"], node_id=node_id, owner_id=owner_id)
        return row is not None

    async def heartbeats(
        self,
        beats: Sequence[tuple[int, float]],
        gateway: str | None = None,
        clocks: Mapping[int, float] = {},
    ) -> set[int]:
        """Note heartbeats that a gateway has heard: pairs of a node id and an interval in seconds.

        `clocks` has the seconds by which nodes' clocks are ahead of the gateway's. Returns the
        unknown ids.
        """
        rows = await self._session.fetch_all(
            _SQL["heartbeats"],
            node_ids=[node_id for node_id, _ in beats],
            intervals=[float(interval) for _, interval in beats],
            aheads=[clocks.get(node_id) for node_id, _ in beats],
            patience=HEARTBEAT_PATIENCE,
            farewell=_LATE_SECONDS,
            gateway=gateway,
        )
        return {node_id for node_id, _ in beats} - {row["node_id"] for row in rows}

    async def seen(self, node_ids: Sequence[int], gateway: str | None = None) -> None:
        """Note that a gateway has heard nodes by other calls than heartbeats."""
        await self._session.execute(_SQL["seen"], node_ids=list(node_ids), gateway=gateway)

    async def any_online(self) -> bool:
        """Return whether there is a node that could fall silent."""
        return await self._session.fetch_one(_SQL["any_online"]) is not None

    async def expire(self) -> list[int]:
        """Take nodes offline that have been silent for too long; return them."""
        rows = await self._session.fetch_all(_SQL["expire"], deaf_after=DEAF_AFTER, absence=ABSENCE)
        return [row["node_id"] for row in rows]

    async def forget_unseen(self) -> list[int]:
        """Remove nodes that have registered themselves and are gone for good; return them."""
        rows = await self._session.fetch_all(
            _SQL["forget"], seconds=UNSEEN_SECONDS, kept=_UNSEEN_NODES
        )
        return [row["node_id"] for row in rows]

    async def unlist(self, seconds: float) -> int:
        """Leave nodes that were not online for `days` out of lists; return how many.

        Such a node is listed again once it comes online or is registered again.
        """
        rows = await self._session.fetch_all(_SQL["unlist"], seconds=float(seconds))
        return len(rows)

    async def statuses(self, node_ids: Sequence[int]) -> dict[int, str]:
        """Return the status of each of these nodes that exists."""
        rows = await self._session.fetch_all(_SQL["statuses"], node_ids=list(node_ids))
        return {row["node_id"]: row["status"] for row in rows}

    async def last_heard(self, node_ids: Sequence[int]) -> list[NodeSign]:
        """Return the status of each of these nodes that exists, and when it was last heard."""
        rows = await self._session.fetch_all(
            _SQL["last_heard"], node_ids=list(node_ids), patience=HEARTBEAT_PATIENCE
        )
        return [NodeSign(**row) for row in rows]

    async def listed(self, most: int) -> list[NodeSign]:
        """Return the nodes for lists, those that are online first."""
        rows = await self._session.fetch_all(_SQL["listed"], patience=HEARTBEAT_PATIENCE, most=most)
        return [NodeSign(**row) for row in rows]

    async def is_awaited(self, run_id: int) -> bool:
        """Return whether a node of a run's federation may still be heard after an outage of the
        runtime.

        Such a node was online before the outage, and has `RETURN_SECONDS` from its end to be heard.
        """
        row = await self._session.fetch_one(
            _SQL["is_awaited"], run_id=run_id, seconds=RETURN_SECONDS
        )
        return bool(row and row["is_awaited"])

    async def online_of_run(self, run_id: int) -> list[Node]:
        """Return the nodes of a run's federation that are online, and were heard since an outage."""
        rows = await self._session.fetch_all(_SQL["online_of_run"], run_id=run_id)
        return [_node(row) for row in rows]

    async def newest(
        self, limit: int, account_id: str | None, node_id: int | None = None
    ) -> list[tuple[Node, NodeSign]]:
        """Return the nodes that an account sees, or all: online ones first, then the last seen.

        With `node_id`, return only that node, even if lists leave it out.
        """
        rows = await self._session.fetch_all(
            _SQL["newest"],
            limit=limit,
            patience=HEARTBEAT_PATIENCE,
            account_id=account_id,
            node_id=node_id,
        )
        return [
            (_node(row), NodeSign(**{name: row[name] for name in _SIGN_FIELDS})) for row in rows
        ]

    async def presence(self, node_id: int, limit: int) -> list[tuple[datetime, str]]:
        """Return when a node came and went, with its status from then on, the newest first."""
        rows = await self._session.fetch_all(_SQL["presence"], node_id=node_id, limit=limit)
        return [(row["at"], row["status"]) for row in rows]

    async def statuses_of_run(self, run_id: int, node_ids: Sequence[int]) -> dict[int, str]:
        """Return the status of each of these nodes that is in a run's federation."""
        rows = await self._session.fetch_all(
            _SQL["statuses_of_run"], run_id=run_id, node_ids=list(node_ids)
        )
        return {row["node_id"]: row["status"] for row in rows}

    async def reachable(self, pairs: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
        """Return the pairs of a run and a node of its federation in which the node is online."""
        rows = await self._session.fetch_all(
            _SQL["reachable"],
            run_ids=[run_id for run_id, _ in pairs],
            node_ids=[node_id for _, node_id in pairs],
        )
        return {(row["run_id"], row["node_id"]) for row in rows}

    async def of_federation(self, federation: str) -> list[Node]:
        """Return the nodes of a federation, oldest first."""
        rows = await self._session.fetch_all(_SQL["of_federation"], federation=federation)
        return [_node(row) for row in rows]

    async def owner(self, node_id: int) -> str | None:
        """Return the account of a registered node, None if there is no such node."""
        row = await self._session.fetch_one(_SQL["owner"], node_id=node_id)
        return None if row is None else str(row["owner_id"])

    async def owned_by(self, owner_id: str | None) -> list[Node]:
        """Return the nodes of an account, or all, including unregistered ones, oldest first."""
        return [
            _node(row) for row in await self._session.fetch_all(_SQL["list"], owner_id=owner_id)
        ]

    async def versions_online(self) -> dict[str, int]:
        """Return how many nodes of each version of flwr are online."""
        rows = await self._session.fetch_all(_SQL["versions_online"])
        return {row["version"]: row["count"] for row in rows}

    async def counts(self) -> dict[str, int]:
        """Return how many nodes are in each status."""
        return {
            row["status"]: row["count"] for row in await self._session.fetch_all(_SQL["counts"])
        }


def _node_id(row: Row | None) -> int | None:
    return None if row is None else int(row["node_id"])


def _node(row: Row) -> Node:
    values = {name: row[name] for name in _FIELDS}
    return Node(**{**values, "status": NodeStatus(row["status"])})
