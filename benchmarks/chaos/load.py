"""The load: SuperNodes, and a few runs at a time on some of them; all clients call as stock does.

If the server has both wires, half of the nodes and half of the runs are on each.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.chaos.plan import Plan
from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from harness.apps import StockApp, SuperExec
from harness.channels import Refused, WireName
from harness.follower import LogFollower
from harness.nodes import Node, StockNode
from harness.wire import Made, Wire

_LOG_SECONDS = 60.0
_PAUSE_AFTER_REFUSAL = 1.0


@dataclass
class Run:
    """One run, from its submission to its last log line."""

    nodes: Sequence[Node]
    wire: WireName
    """The wire of its ServerApp, and of the flwr command that submits it."""

    app: StockApp
    logs: list[LogFollower] = field(default_factory=list)
    """The follower of its log from the start, and the reader of its log at the end."""

    refusals: int = 0
    """How often `flwr run` was refused with UNAVAILABLE."""

    given_up: str = ""
    """Why the run was given up, if it was."""

    status: str = "not submitted"
    """The status that `flwr list` shows at the end."""


class Load:
    """All clients of one server: runs are submitted with `fab`; `real` nodes are online already."""

    def __init__(
        self, addresses: Mapping[str, str], plan: Plan, fab: bytes, real: Sequence[Node]
    ) -> None:
        self.calls: list[Made] = []
        """All calls, except those that a server holds until it has an answer."""
        self._addresses = addresses
        self._plan = plan
        self._fab = fab
        self._random = random.Random(plan.seed)
        self._wires = wires(addresses)
        self._superexec = SuperExec(*(self._wire("Runtime", one) for one in self._wires))
        count = plan.nodes - len(real)
        self.nodes = [
            StockNode(number, self._wire("Fleet", self._wire_of(number)))
            for number in range(1, count + 1)
        ]
        self.everybody: list[Node] = [*self.nodes, *real]
        """Simulated and real nodes."""
        self.runs = [
            self._run(real if number < plan.real_runs else (), self._wire_of(number))
            for number in range(plan.runs)
        ]

    async def join(self) -> None:
        """Connect the nodes."""
        for node in self.nodes:
            node.work_seconds = self._random.uniform(*self._plan.work_seconds)
        await asyncio.gather(*(node.join() for node in self.nodes))

    async def work(self, ended: Callable[[Run], None]) -> None:
        """Do all the runs; a run that does not finish in time is given up."""
        gate = asyncio.Semaphore(self._plan.at_once)
        deadline = asyncio.get_running_loop().time() + self._plan.limit

        async def do(run: Run) -> None:
            async with gate:
                try:
                    async with asyncio.timeout_at(deadline):
                        await self._do(run)
                except TimeoutError:
                    run.given_up = "not finished in time"
                ended(run)

        await asyncio.gather(*(do(run) for run in self.runs))

    async def look_back(self) -> None:
        """At the end, ask the server for the status and the log of each run."""
        wire = self._wire("Control", self._wires[0])
        for run in self.runs:
            if run.app.run_id:
                request = control.ListRunsRequest(run_id=run.app.run_id)
                answer = await wire.call("Control", "ListRuns", request)
                status = answer.run_dict[run.app.run_id].status
                run.status = f"{status.status}:{status.sub_status}"
                if status.status == "finished":
                    late = LogFollower(self._wire("Control", run.wire), run.app.run_id)
                    run.logs.append(late)
                    await late.until_end(_LOG_SECONDS)
        await wire.close()

    async def nodes_gone(self) -> list[int]:
        """Return the numbers of nodes that were ever taken offline."""
        wire = self._wire("Control", self._wires[0])
        answer = await wire.call("Control", "ListNodes", control.ListNodesRequest())
        await wire.close()
        ours = {node.node_id: node.number for node in self.everybody}
        return [
            ours.get(info.node_id, 0)
            for info in answer.nodes_info
            if info.last_deactivated_at or info.status != "online"
        ]

    async def close(self) -> None:
        """Stop all clients at once."""
        for run in self.runs:
            await run.app.kill()
            await asyncio.gather(*(log.close() for log in run.logs))
        await asyncio.gather(*(node.kill() for node in self.nodes))
        await self._superexec.close()

    def _wire_of(self, number: int) -> WireName:
        return self._wires[number % len(self._wires)]

    def _run(self, real: Sequence[Node], wire: WireName) -> Run:
        simulated = self._random.sample(self.nodes, self._plan.nodes_per_run - len(real))
        nodes = [*simulated, *real]
        app = StockApp(
            self._wire("Control", wire),
            self._wire("Runtime", wire),
            nodes,
            limit=self._plan.rounds,
            superexec=self._superexec,
        )
        return Run(nodes, wire, app)

    async def _do(self, run: Run) -> None:
        while not run.app.run_id:
            try:
                await run.app.submit(self._fab)
            except Refused as exc:
                if exc.outcome is not Outcome.UNAVAILABLE:
                    raise
                # The CLI does not retry, but a person would.
                run.refusals += 1
                await asyncio.sleep(_PAUSE_AFTER_REFUSAL)
        run.logs.append(LogFollower(self._wire("Control", run.wire), run.app.run_id))
        await run.app.start()
        await run.app.until_end(self._plan.limit)
        if run.app.death is None:
            await run.logs[0].until_end(_LOG_SECONDS)

    def _wire(self, service: str, name: WireName) -> Wire:
        address = self._addresses["Http" if name == "http" else service]
        return Wire(address, self._note, name)

    def _note(self, call: Made) -> None:
        if call.method not in _HELD:
            self.calls.append(call)


_HELD = frozenset({"PullMessages", "PullPendingTasks", "AcquireTask"})


def wires(addresses: Mapping[str, str]) -> Sequence[WireName]:
    """Return the wires of a server, by its addresses."""
    return ("grpc", "http") if "Http" in addresses else ("grpc",)
