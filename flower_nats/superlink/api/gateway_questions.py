"""Gateways' questions to superlinks: who is calling, and the state of nodes, tasks and runs.

Questions and answers are maps of plain values (msgpack).
"""

from collections.abc import Mapping
from typing import Any

from flower_nats.logs import get_logger
from flower_nats.model.about import own_version
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.states import NodeStatus, Status, SubStatus
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.idempotency import once
from flower_nats.store.nodes import Nodes
from flower_nats.store.nonces import Nonces
from flower_nats.store.replicas import Replicas
from flower_nats.store.runs import Runs, RunUsage
from flower_nats.store.task_events import Events
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.codecs import InternalHandler
from flower_nats.superlink.convert import event_to_wire, iso
from flower_nats.superlink.runs.lifecycle import Lifecycle

log = get_logger(__name__)

Map = Mapping[str, Any]

_EVENTS_AT_ONCE = 500


class GatewayQuestions:
    """Serves gateways, and the hosts of SuperExecs."""

    def __init__(
        self,
        database: Database,
        lifecycle: Lifecycle,
        *,
        supernode_auth: bool,
    ) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._supernode_auth = supernode_auth
        self._nodes = Nodes(database)
        self._runs = Runs(database)
        self._tasks = Tasks(database)
        self._events = Events(database)
        self._nonces = Nonces(database)
        self._replicas = Replicas(database)

    def handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC."""
        return {
            "ResolveNode": self.resolve_node,
            "ResolveToken": self.resolve_token,
            "RunState": self.run_state,
            "CheckNodes": self.check_nodes,
            "Heartbeats": self.heartbeats,
            "ReserveNonce": self.reserve_nonce,
            "Usage": self.usage,
            "TaskEvents": self.task_events,
            "Announce": self.announce,
            "Leave": self.leave,
            "SuperexecHosts": self.superexec_hosts,
            "TaskLost": self.task_lost,
        }

    async def resolve_node(self, question: Map, caller: Caller) -> Map:
        """{public_key} -> {node_id, registered_by_account, left}: None or False if there is none.

        `node_id` is None for a key that is unknown or unregistered or, with SuperNode
        authentication, that no account has registered. If only the gateway has SuperNode
        authentication, it decides itself. `left` is the id of a node that was unregistered a moment
        ago.
        """
        node = await self._nodes.resolve(question["public_key"])
        if node is None or (self._supernode_auth and not node.registered_by_account):
            return {"node_id": None, "registered_by_account": False, "left": None}
        if node.has_left:
            return {"node_id": None, "registered_by_account": False, "left": node.node_id}
        return {
            "node_id": node.node_id,
            "registered_by_account": node.registered_by_account,
            "left": None,
        }

    async def resolve_token(self, question: Map, caller: Caller) -> Map:
        """{task_token} -> {task: {task_id, run_id, type, finished}}: None for an invalid token.

        `finished` means that the task has finished itself, and its process is ending.
        """
        task = await self._tasks.by_token(question["task_token"])
        if task is None:
            return {"task": None}
        return {
            "task": {
                "task_id": task.task_id,
                "run_id": task.run_id,
                "type": task.type,
                "finished": task.status is Status.FINISHED,
            }
        }

    async def run_state(self, question: Map, caller: Caller) -> Map:
        """{run_id} -> {status, sub_status, details}: status None for an unknown run."""
        run = await self._runs.get(question["run_id"])
        if run is None:
            return {"status": None, "sub_status": "", "details": ""}
        return {"status": str(run.status), "sub_status": run.sub_status, "details": run.details}

    async def check_nodes(self, question: Map, caller: Caller) -> Map:
        """{run_id, node_ids} -> {online, offline}: other nodes cannot get messages of this run.

        They do not exist, or are not in the federation of the run.
        """
        statuses = await self._nodes.statuses_of_run(question["run_id"], question["node_ids"])
        return {
            str(wanted): [node_id for node_id, status in statuses.items() if status == wanted]
            for wanted in (NodeStatus.ONLINE, NodeStatus.OFFLINE)
        }

    async def heartbeats(self, question: Map, caller: Caller) -> Map:
        """{beats: [[node_id, interval_s], …], gateway, seen?, clocks?} -> {unknown}: unknown ids.

        `seen`: ids of nodes that have made other calls. `clocks`: pairs of an id and the seconds by
        which that node's clock is ahead of the gateway's.
        """
        if seen := question.get("seen"):
            await self._nodes.seen(seen, question.get("gateway"))
        beats = [(node_id, float(interval)) for node_id, interval in question["beats"]]
        if not beats:
            return {"unknown": []}
        clocks = {int(node_id): float(ahead) for node_id, ahead in question.get("clocks", ())}
        unknown = await self._nodes.heartbeats(beats, question.get("gateway"), clocks)
        return {"unknown": sorted(unknown)}

    async def reserve_nonce(self, question: Map, caller: Caller) -> Map:
        """{namespace, nonce, expires_at, holder} -> {reserved}: False if another has used it.

        `holder` stays the same if the gateway repeats the question.
        """
        reserved = await self._nonces.reserve(
            question["namespace"], question["nonce"], question["expires_at"], question["holder"]
        )
        return {"reserved": reserved}

    async def usage(self, question: Map, caller: Caller) -> Map:
        """{runs: [[run_id, bytes_sent, bytes_recv, clientapp_runtime_s], …]} -> {}: adds up."""
        used = [RunUsage(*entry) for entry in question["runs"]]

        async def add(transaction: Transaction) -> bytes:
            await Runs(transaction).add_usage(used)
            return b""

        if used:
            await once(self._database, caller.request_id, add)
        return {}

    async def task_events(self, question: Map, caller: Caller) -> Map:
        """{run_id, after, primary_only} -> {events, finished}: `finished` if no more can follow these.

        `primary_only`: only events of the primary task, as clients of flwr 1.35 and newer expect. A
        gateway without this field gets all.
        """
        # The state is read first, so that all events of a finished run are read after it.
        run = await self._runs.get(question["run_id"])
        if run is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {question['run_id']}")
        events = await self._events.after(
            run.run_id,
            question["after"],
            _EVENTS_AT_ONCE,
            primary_only=bool(question.get("primary_only")),
        )
        return {
            "events": [event_to_wire(event).SerializeToString() for event in events],
            "finished": run.status is Status.FINISHED and len(events) < _EVENTS_AT_ONCE,
        }

    async def announce(self, question: Map, caller: Caller) -> Map:
        """{kind, id, since, simulations?, about?} -> {heard_since, version}: a replica is alive.

        From a gateway, it also means that heartbeats are heard. `simulations`: how many the host of
        a SuperExec runs at a time. `about`: what a replica reports of itself. `heard_since`: when
        the last outage ended; nodes must be heard again after it. `version`: ours.
        """
        kind, replica_id = question["kind"], question["id"]
        away = await self._replicas.announce(
            kind,
            replica_id,
            question["since"],
            question.get("simulations"),
            question.get("about"),
        )
        if away:
            log.warning("gateway_was_away", gateway=replica_id, seconds=round(away, 1))
        if kind == "gateway":
            deaf = await self._replicas.heard()
            if deaf:
                log.warning("deadlines_moved", seconds=round(deaf, 1))
        return {"heard_since": iso(await self._replicas.heard_since()), "version": own_version()}

    async def superexec_hosts(self, question: Map, caller: Caller) -> Map:
        """{} -> {hosts}: the ids of the hosts that run a SuperExec."""
        return {"hosts": await self._replicas.superexec_hosts()}

    async def task_lost(self, question: Map, caller: Caller) -> Map:
        """{task_token, reason} -> {}: the process of a task is gone, and the task is unfinished."""
        task = await self._tasks.by_token(question["task_token"])
        if task is None or task.status is Status.FINISHED:
            return {}
        finished = await self._tasks.finish(
            task.task_id, SubStatus.FAILED, str(question["reason"]), question["task_token"]
        )
        if finished is not None:
            log.warning("task_lost", **task.log_context(), reason=question["reason"])
            await self._lifecycle.task_finished(finished)
        return {}

    async def leave(self, question: Map, caller: Caller) -> Map:
        """{kind, id} -> {}: a replica ends."""
        await self._replicas.leave(question["kind"], question["id"])
        return {}
