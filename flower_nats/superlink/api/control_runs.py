"""The Control API about runs, for `flwr run`, `list` and `stop`."""

from collections.abc import Mapping

from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.config import MAX_OVERRIDES_BYTES, Config, InvalidConfig, check_overrides
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.fab import FabInfo, InvalidFab
from flower_nats.model.federation import Federation
from flower_nats.model.ids import new_id
from flower_nats.model.run import DESCRIPTION_LENGTH, MOST_LISTED, NewRun, Run
from flower_nats.model.states import SubStatus
from flower_nats.model.task import Finished, TaskType
from flower_nats.model.visible import visible_lines
from flower_nats.store.apps import Apps
from flower_nats.store.audit import note_object
from flower_nats.store.connection import Database, DatabaseFull, Transaction
from flower_nats.store.fabs import Fabs
from flower_nats.store.federations import Federations
from flower_nats.store.idempotency import once
from flower_nats.store.members import Members
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.api.control_apps import app_id_of
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import (
    config_from_wire,
    config_to_bytes,
    next_context,
    now_iso,
    run_to_wire,
)
from flower_nats.superlink.housekeeping.room_watch import RoomWatch
from flower_nats.superlink.runs import simulation
from flower_nats.superlink.runs.fab_checks import FabChecks
from flower_nats.superlink.runs.federations import KnownFederations
from flower_nats.superlink.runs.lifecycle import Lifecycle
from flower_nats.superlink.runs.shutdown import check_open
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

_REASON_LENGTH = 1_000
"""Characters of a refusal, which may quote names of any length. gRPC allows 8 KiB."""

_PROMPT_BYTES = 256 * 1024
"""Bytes of an agent's prompt."""

_MOST = 2**31 - 1

_ELECTION = 8.0
"""Seconds for which a new run waits for streams that do not store, because NATS servers may be
electing new leaders. A full disk lasts longer."""

_LISTED = 20
"""Runs that clients of flwr 1.40 and newer get by default; older clients want all."""


class ControlRunsApi:
    """Serves the CLI's commands about runs."""

    def __init__(
        self,
        database: Database,
        lifecycle: Lifecycle,
        federations: KnownFederations,
        trials: StreamTrials,
        room: RoomWatch,
    ) -> None:
        self._database = database
        self._federations = federations
        self._lifecycle = lifecycle
        self._trials = trials
        self._room = room
        self._runs = Runs(database)
        self._fabs = Fabs(database)
        self._checks = FabChecks()

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "StartRun": self.start_run,
            "StopRun": self.stop_run,
            "ListRuns": self.list_runs,
        }

    async def start_run(
        self, request: control.StartRunRequest, caller: Caller
    ) -> control.StartRunResponse:
        """Create a run of an app, once for each call of the CLI, even if it is repeated."""
        if refusals := await self._trials.reasons_after(_ELECTION):
            # Without this check, the run would be created and hang silently.
            raise ApiError(ErrorCode.NOTHING_STORED, str(refusals))
        try:
            return await self._start_run(request, caller)
        except Unavailable as exc:
            if isinstance(exc, DatabaseFull) or self._room.is_full:
                raise ApiError(ErrorCode.NOTHING_STORED, exc.detail) from exc
            raise

    async def _start_run(
        self, request: control.StartRunRequest, caller: Caller
    ) -> control.StartRunResponse:
        await check_open(self._database)
        federation = await self._federations.open(request.federation)
        content = await self._fab_content(request, federation.name)
        if request.connector_refs or request.connector_ids:
            raise ApiError(ErrorCode.CONNECTOR_NOT_FOUND, "connectors are not supported")
        info, config = await self._check_app(content, request, caller)
        prompt = _prompt(request, info, config, caller)
        simulated = self._simulation_of(federation, info, request)
        new = NewRun(
            fab_id=info.fab_id,
            fab_version=info.version,
            fab_hash=info.fab_hash,
            override_config=config_to_bytes(request.override_config),
            federation=federation.name,
            account_id=caller.account_id,
            account_name=caller.account_name,
            primary_task_type=info.task_type if simulated is None else TaskType.SIMULATION,
            series_id=request.series_id if request.HasField("series_id") else None,
            series_description=_cut(" ".join(prompt.split()), DESCRIPTION_LENGTH),
            user_prompt=prompt,
            simulation_config=simulated,
        )

        async def create(transaction: Transaction) -> bytes:
            await _check_still(transaction, federation.name, caller)
            await Fabs(transaction).put(info.fab_hash, content)
            await Apps(transaction).put(federation.name, info)
            response = await _create_run(transaction, new)
            note_object(f"run {response.run_id}, {federation.name}")
            return response.SerializeToString()

        answer = await once(self._database, caller.request_id, create)
        response = control.StartRunResponse.FromString(answer)
        log.info("run_created", run_id=response.run_id, fab_id=info.fab_id)
        await self._lifecycle.task_pending(response.run_id)
        return response

    async def stop_run(
        self, request: control.StopRunRequest, caller: Caller
    ) -> control.StopRunResponse:
        """Stop a run that has not finished, with all its tasks."""
        run = await self._run(request.run_id)
        finished: Finished | None = None

        async def stop(transaction: Transaction) -> bytes:
            nonlocal finished
            finished = await Tasks(transaction).finish(run.primary_task_id, SubStatus.STOPPED, "")
            if finished is None:
                raise ApiError(ErrorCode.RUN_ALREADY_FINISHED, f"run {run.run_id} is {run.status}")
            return control.StopRunResponse(success=True).SerializeToString()

        answer = await once(self._database, caller.request_id, stop)
        log.info("run_stopped", run_id=run.run_id, account=caller.account_id)
        if finished is not None:
            await self._lifecycle.task_finished(finished)
        return control.StopRunResponse.FromString(answer)

    async def list_runs(
        self, request: control.ListRunsRequest, caller: Caller
    ) -> control.ListRunsResponse:
        """Return one run, or the newest of those that the account sees."""
        if request.HasField("run_id"):
            runs = [await self._run(request.run_id)]
        else:
            skip = min(request.skip, _MOST)
            runs = await self._runs.seen_by(caller.sees, _limit(request, caller), skip)
        return control.ListRunsResponse(
            run_dict={run.run_id: run_to_wire(run, run.account_name) for run in runs},
            now=now_iso(),
        )

    async def _check_app(
        self, content: bytes, request: control.StartRunRequest, caller: Caller
    ) -> tuple[FabInfo, Config]:
        """Check an app and the overrides of its configuration; return both in the run's form."""
        try:
            _check_sizes(request)
            overrides = config_from_wire(request.override_config)
            info = await self._checks.check(content, caller.answer_by)
            if request.fab.hash_str and request.fab.hash_str != info.fab_hash:
                raise InvalidFab("The app's FAB does not have the hash that came with it.")
            check_overrides(info.config, overrides)
        except (InvalidFab, InvalidConfig) as exc:
            reason = visible_lines(_cut(str(exc), _REASON_LENGTH))
            raise ApiError(ErrorCode.INVALID_RUN_CONFIG, reason, reason) from exc
        if request.app_spec and app_id_of(request.app_spec) != f"@{info.fab_id}":
            text = f"The FAB is not of the app {request.app_spec[:80]!r}."
            raise ApiError(ErrorCode.INVALID_APP_SPEC, text, text)
        return info, {**info.config, **overrides}

    def _simulation_of(
        self, federation: Federation, info: FabInfo, request: control.StartRunRequest
    ) -> bytes | None:
        """Return the simulation options of a run, None for a deployment or an agent."""
        override = request.override_federation_config
        simulation.check(override)
        if not self._federations.is_simulation(federation) or info.task_type is TaskType.AGENT_APP:
            return None
        config = simulation.merged(simulation.DEFAULTS, federation.simulation_config, override)
        return config.SerializeToString(deterministic=True)

    async def _run(self, run_id: int) -> Run:
        run = await self._runs.get(run_id)
        if run is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {run_id}")
        return run

    async def _fab_content(self, request: control.StartRunRequest, federation: str) -> bytes:
        """Return the FAB in a request, or the federation's FAB with the request's hash."""
        if request.fab.hash_str and not request.fab.content:
            fab = await self._fabs.get(request.fab.hash_str)
            if fab is None or not await self._fabs.is_of(federation, fab.fab_hash):
                raise ApiError(ErrorCode.FAB_DOWNLOAD_FAILURE, f"no FAB {request.fab.hash_str}")
            return fab.content
        if request.app_spec:
            app_id_of(request.app_spec)
            raise ApiError(ErrorCode.UNSUPPORTED_FAB_HUB_TRANSPORT, request.app_spec)
        return request.fab.content


def _check_sizes(request: control.StartRunRequest) -> None:
    """Check that a run is not larger than the limits for stored runs."""
    # With too many overrides, computing their exact size would waste time.
    rest = request.ByteSize() - request.fab.ByteSize() - len(request.user_prompt.encode())
    if rest > 2 * MAX_OVERRIDES_BYTES or _overrides_size(request) > MAX_OVERRIDES_BYTES:
        raise InvalidConfig(
            f"The overrides of the configuration (--run-config) have about {rest:,} bytes, and "
            f"at most {MAX_OVERRIDES_BYTES:,} (256 KiB) are accepted. Put large values into a "
            "file of the app."
        )
    size = len(request.user_prompt.encode())
    if size > _PROMPT_BYTES:
        raise InvalidConfig(
            f"The prompt has {size:,} bytes, and at most {_PROMPT_BYTES:,} (256 KiB) are accepted."
        )


def _overrides_size(request: control.StartRunRequest) -> int:
    return len(config_to_bytes(request.override_config))


def _prompt(request: control.StartRunRequest, info: FabInfo, config: Config, caller: Caller) -> str:
    """Return the prompt if the app is an agent; refuse an agent's run without a prompt.

    Agents before flwr 1.38 read it from their configuration, and may run without one.
    """
    if info.task_type is not TaskType.AGENT_APP:
        return ""
    prompt = request.user_prompt.strip()
    if not prompt and not caller.is_older_than(1, 38):
        raise ApiError(ErrorCode.AGENTAPP_USER_PROMPT_REQUIRED, info.fab_id)
    return prompt or str(config.get("agent.input", ""))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _limit(request: control.ListRunsRequest, caller: Caller) -> int:
    if request.HasField("limit"):
        return min(request.limit, MOST_LISTED)
    return MOST_LISTED if caller.is_older_than(1, 40) else _LISTED


async def _check_still(transaction: Transaction, federation: str, caller: Caller) -> None:
    """Check, and lock, that the federation still takes the account's runs."""
    found = await Federations(transaction).hold(federation)
    role = await Members(transaction).role(federation, caller.account_id)
    if found is None or found.archived or (role is None and not caller.is_operator):
        raise ApiError(ErrorCode.FEDERATION_NOT_FOUND_OR_NO_PERMISSION, federation)


async def _create_run(transaction: Transaction, new: NewRun) -> control.StartRunResponse:
    series, runs = SeriesStore(transaction), Runs(transaction)
    run_id, series_id, context = new_id(), new.series_id, b""
    if series_id is None:
        is_agent = new.primary_task_type == TaskType.AGENT_APP
        series_id = await series.begin(new.federation, new.series_description, is_agent=is_agent)
    else:
        found = await series.lock(series_id, new.federation)
        if found is None:
            raise ApiError(ErrorCode.RUN_SERIES_ID_NOT_FOUND, f"there is no series {series_id}")
        context = found
    await series.go_on(series_id, next_context(context, run_id, series_id))
    await runs.create(run_id, series_id, new)
    return control.StartRunResponse(run_id=run_id, series_id=series_id, federation=new.federation)
