"""The watch beside a SuperExec: limits its simulations, and ends what they leave behind.

A stock SuperExec takes any pending task, and `flwr-simulation` starts a Ray of its own: a dozen
processes. A host tells superlinks how many simulations it runs at a time. It watches its
simulations, and ends processes that outlast their run: a simulation that was stopped learns this
only at its next heartbeat, and one that was killed may leave Ray processes behind.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient
from flower_nats.embedded.identity import (
    ProcessIdentity,
    command_of,
    descendants_of,
    started_by,
)
from flower_nats.embedded.process import ProcessFailedError, private_file
from flower_nats.logs import get_logger
from flower_nats.model.about import about_process
from flower_nats.model.errors import ApiError, Unavailable
from flower_nats.model.ids import token_hash
from flower_nats.model.superexec_secret import NO_SECRET, read_superexec_secrets, secret_of_host
from flower_nats.settings import SuperexecSettings
from flower_nats.stopping import end_tasks
from flower_nats_cli.flower import superexec_process

log = get_logger(__name__)

_ANNOUNCE_SECONDS = 5.0
"""Seconds between two signs of life."""
_LOOK_SECONDS = 1.0
"""Seconds between two looks at the simulations. A stopped run has 10 s in all to end."""
_ASK_SECONDS = 5.0
"""Seconds to wait for an answer. The next look asks again."""
_INTERRUPTED_SECONDS = 4.0
"""Seconds for an interrupted simulation to send its last lines and to end Ray."""
_FINISHED_SECONDS = 15.0
"""Seconds for a finished simulation to end its process: three times flwr's own limit."""
_ORPHANED_SECONDS = 2.0
"""Seconds for a simulation's children to end after it: Ray's processes notice by themselves."""
_UNSAID_SECONDS = 3.0
"""Seconds from the end of a simulation until its run fails: its result may be on its way."""

_SIMULATION = "flwr-simulation"
_LOST = (
    "flwr-simulation ended without a message. It crashed, or was killed: by hand, because "
    "memory ran short, or because its SuperExec ended."
)


@dataclass
class _Simulation:
    """A `flwr-simulation` that our SuperExec has started."""

    process: ProcessIdentity
    token: str
    superexec: ProcessIdentity
    """The SuperExec that started it."""
    family: set[ProcessIdentity] = field(default_factory=set)
    """All its descendants."""
    over_since: float | None = None
    """When its run was found to be over, by `time.monotonic`."""
    gone_since: float | None = None
    """When its process was found to be gone."""
    is_settled: bool = False
    """Whether its task is surely finished, or belongs to another process."""

    def look(self) -> None:
        """Note its present descendants."""
        self.family = {one for one in self.family if one.is_alive()}
        self.family |= set(descendants_of(self.process.pid)) if self.process.is_alive() else set()

    def kill(self, *processes: ProcessIdentity) -> None:
        """Kill some of its processes, if they still run."""
        for process in processes:
            process.signal(signal.SIGKILL)


class SuperexecHost:
    """A host of a SuperExec: announces itself, and watches over the simulations."""

    def __init__(self, simulations: int, superexec_pid: Callable[[], int]) -> None:
        """`simulations` run at a time; `superexec_pid` is 0 while there is none."""
        self.id = uuid.uuid4().hex
        self._limit = simulations
        self._superexec_pid = superexec_pid
        self._since = time.time()
        self._running: dict[ProcessIdentity, _Simulation] = {}

    def write_secret(self, file: Path, shared: Path | None) -> Path:
        """Write the SuperExec's own secret, derived from the shared one; return `file`."""
        secret = NO_SECRET if shared is None else read_superexec_secrets(shared)[0]
        return private_file(file, secret_of_host(secret, self.id).decode())

    @asynccontextmanager
    async def watching(
        self, nats: Sequence[str], ca_certificate: Path | None = None
    ) -> AsyncIterator[None]:
        """Announce the host, and watch, for the time of a `with` block."""
        connection = await _connect(nats, ca_certificate)
        rpc = RpcClient(connection)
        tasks = []
        try:
            # Gateways must know the SuperExec at its first call.
            await self._announce_until_heard(rpc)
            tasks += [
                asyncio.create_task(self._announce_forever(rpc), name="superexec-announce"),
                asyncio.create_task(self._watch_forever(rpc), name="superexec-watch"),
            ]
            yield
        finally:
            await end_tasks(tasks)
            await self._say_farewell(rpc)
            await connection.close()

    async def _announce(self, rpc: RpcClient) -> None:
        await rpc.ask(
            "Announce",
            kind="superexec",
            id=self.id,
            since=self._since,
            simulations=self._limit,
            about=about_process(),
        )

    async def _announce_until_heard(self, rpc: RpcClient) -> None:
        """Announce the host to superlinks, which may not have started yet."""
        while True:
            with suppress(Unavailable):
                await self._announce(rpc)
                return

    async def _announce_forever(self, rpc: RpcClient) -> None:
        while True:
            await asyncio.sleep(_ANNOUNCE_SECONDS)
            with suppress(ApiError):
                await self._announce(rpc)

    async def _watch_forever(self, rpc: RpcClient) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._find_new()
            for simulation in list(self._running.values()):
                simulation.look()
                # A superlink that does not answer is asked again at the next look.
                with suppress(ApiError):
                    await self._look_after(simulation, rpc)

    def _find_new(self) -> None:
        superexec = ProcessIdentity.of(self._superexec_pid())
        if superexec is None:
            return
        for child in started_by(superexec.pid):
            if child not in self._running and (token := _token_of(child)):
                self._running[child] = _Simulation(child, token, superexec)

    async def _look_after(self, simulation: _Simulation, rpc: RpcClient) -> None:
        if simulation.process.is_alive():
            if simulation.over_since is None:
                await self._end_if_over(simulation, rpc)
            elif time.monotonic() - simulation.over_since > _INTERRUPTED_SECONDS:
                log.warning("simulation_killed", pid=simulation.process.pid)
                simulation.kill(simulation.process, *simulation.family)
            return
        simulation.gone_since = simulation.gone_since or time.monotonic()
        gone = time.monotonic() - simulation.gone_since
        if gone > _ORPHANED_SECONDS and simulation.family:
            log.warning("simulation_orphans_killed", pids=_pids(simulation.family))
            simulation.kill(*simulation.family)
        if gone > _UNSAID_SECONDS and not simulation.is_settled:
            await rpc.ask(
                "TaskLost",
                patience=_ASK_SECONDS,
                task_token=token_hash(simulation.token),
                reason=_LOST,
            )
            simulation.is_settled = True
        if simulation.is_settled and not simulation.family:
            del self._running[simulation.process]

    async def _end_if_over(self, simulation: _Simulation, rpc: RpcClient) -> None:
        """Interrupt a simulation if its run is over, or if its SuperExec is gone.

        A simulation also looks for its SuperExec itself, but in a thread. Its main thread may not
        notice while it waits for answers.
        """
        if not simulation.superexec.is_alive():
            self._interrupt(simulation)
            return
        answer = await rpc.ask(
            "ResolveToken", patience=_ASK_SECONDS, task_token=token_hash(simulation.token)
        )
        task = answer["task"]
        if task is None:
            simulation.is_settled = True
            self._interrupt(simulation)
        elif task["finished"]:
            # The simulation is ending by itself, and has more time for that.
            simulation.is_settled = True
            simulation.over_since = time.monotonic() + _FINISHED_SECONDS - _INTERRUPTED_SECONDS

    def _interrupt(self, simulation: _Simulation) -> None:
        log.info("simulation_interrupted", pid=simulation.process.pid)
        simulation.over_since = time.monotonic()
        simulation.process.signal(signal.SIGINT)

    def kill_all(self) -> None:
        """Kill what is left of all simulations."""
        self._find_new()
        for simulation in self._running.values():
            simulation.look()
            simulation.kill(simulation.process, *simulation.family)

    async def _say_farewell(self, rpc: RpcClient) -> None:
        with suppress(ApiError):
            await rpc.ask("Leave", patience=1.0, kind="superexec", id=self.id)


def max_simulations(settings: SuperexecSettings) -> int:
    """Return how many simulations a host runs at a time; by default one for every two cores."""
    return settings.max_simulations or max(1, len(os.sched_getaffinity(0)) // 2)


async def _connect(nats: Sequence[str], ca_certificate: Path | None) -> Connection:
    """Connect to NATS, however long that takes. Processes that need NATS end without it.

    Superlink and gateway may start in this process at the same time, and block it for seconds.
    """
    while True:
        with suppress(Unavailable):
            return await Connection.connect(nats, "superexec", ca_certificate=ca_certificate)
        await asyncio.sleep(_LOOK_SECONDS)


def _token_of(process: ProcessIdentity) -> str:
    """Return the token of a `flwr-simulation`; empty for any other process."""
    words = command_of(process.pid)
    if not any(Path(word).name == _SIMULATION for word in words[:2]) or "--token" not in words[:-1]:
        return ""
    return words[words.index("--token") + 1]


def _pids(processes: Iterable[ProcessIdentity]) -> list[int]:
    return sorted(process.pid for process in processes)


class SuperexecService:
    """A stock SuperExec on its host, which supervisors start, watch and end."""

    def __init__(
        self,
        settings: SuperexecSettings,
        folder: Path,
        nats: Callable[[], Sequence[str]],
        ca_certificate: Path | None = None,
        log_file: Path | None = None,
        pid_file: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is private, and takes the secret of this host; `nats` is known when it starts."""
        self.name = "superexec"
        self._nats = nats
        self._ca_certificate = ca_certificate
        self._host = SuperexecHost(max_simulations(settings), lambda: self._process.pid)
        secret_file = self._host.write_secret(
            folder / "superexec-host.secret", settings.auth_secret_file
        )
        own = replace(settings, auth_secret_file=secret_file)
        self._process = superexec_process(own, log_file, pid_file, **(environment or {}))
        self._watching = AsyncExitStack()
        self._beginning: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start or restart the SuperExec in the background, once superlinks know its host."""
        if self._beginning is None:
            self._beginning = asyncio.create_task(self._begin(), name="superexec-begin")
        else:
            await self._process.start()

    async def begun(self) -> None:
        """Wait until it was started."""
        if self._beginning is not None:
            await self._beginning

    def exit_code(self) -> int | None:
        """Return how it ended; None while it runs or is about to start."""
        if self._beginning is not None and self._beginning.done() and self._beginning.exception():
            return 1
        return self._process.exit_code()

    async def wait(self) -> int:
        """Wait for its end."""
        await self.begun()
        return await self._process.wait()

    async def stop(self, grace: float) -> None:
        """End the SuperExec and all its descendants, by force after `grace` seconds."""
        await end_tasks([self._beginning] if self._beginning is not None else [])
        await self._process.stop(grace)
        self._host.kill_all()
        await self._watching.aclose()

    def failure(self) -> ProcessFailedError:
        """Describe how it ended."""
        return self._process.failure()

    async def _begin(self) -> None:
        await self._watching.enter_async_context(
            self._host.watching(self._nats(), self._ca_certificate)
        )
        await self._process.start()
