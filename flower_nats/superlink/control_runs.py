"""The Control API as far as it is about runs: what `flwr run`, `list` and `stop` ask for."""

import asyncio
from collections.abc import Mapping
from datetime import datetime

from flower_nats.logs import get_logger
from flower_nats.model.caller import Caller
from flower_nats.model.config import Config, InvalidConfig, check_overrides
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.fab import FabInfo, InvalidFab, read_fab
from flower_nats.model.federation import DEFAULT_FEDERATION
from flower_nats.model.ids import new_id
from flower_nats.model.run import NewRun, Run
from flower_nats.model.states import SubStatus
from flower_nats.model.task import Finished, TaskType
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.fabs import Fabs
from flower_nats.store.idempotency import once
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.control_federations import check_known, check_membership
from flower_nats.superlink.convert import (
    config_from_wire,
    config_to_bytes,
    next_context,
    now_iso,
    run_to_wire,
    series_to_wire,
)
from flower_nats.superlink.lifecycle import Lifecycle
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

_DESCRIPTION_LENGTH = 80
"""Characters of a series' description (flwr 1.33 RUN_SERIES_DESCRIPTION_MAX_LENGTH)."""

_REASON_LENGTH = 1_000
"""Characters of a refusal, which may quote names of any length: gRPC has 8 KiB for it."""

_MOST = 2**31 - 1


class ControlRunsApi:
    """Serves the CLI's commands about runs."""

    def __init__(self, database: Database, lifecycle: Lifecycle) -> None:
        self._database = database
        self._lifecycle = lifecycle
        self._runs = Runs(database)
        self._fabs = Fabs(database)
        self._series = SeriesStore(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "StartRun": self.start_run,
            "StopRun": self.stop_run,
            "ListRuns": self.list_runs,
            "ListRunSeries": self.list_run_series,
            "GetRunSeries": self.get_run_series,
        }

    async def start_run(
        self, request: control.StartRunRequest, caller: Caller
    ) -> control.StartRunResponse:
        """Create a run of an app; once for each call of the CLI, however often we have to ask."""
        if request.connector_refs:
            raise ApiError(ErrorCode.CONNECTOR_NOT_FOUND, "connectors are not supported")
        if request.federation:
            check_known(request.federation)
        content = await self._fab_content(request)
        info, config = await asyncio.to_thread(_check_app, content, request)
        new = NewRun(
            fab_id=info.fab_id,
            fab_version=info.version,
            fab_hash=info.fab_hash,
            override_config=config_to_bytes(request.override_config),
            federation=DEFAULT_FEDERATION,
            account_id=caller.account_id,
            primary_task_type=info.task_type,
            series_id=request.series_id if request.HasField("series_id") else None,
            series_description=_describe(info, config),
        )

        async def create(transaction: Transaction) -> bytes:
            await Fabs(transaction).put(info.fab_hash, content)
            response = await _create_run(transaction, new)
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
        """Return one run, or the account's newest."""
        if request.HasField("run_id"):
            runs = [await self._run(request.run_id)]
        else:
            limit = min(request.limit, _MOST) if request.HasField("limit") else None
            runs = await self._runs.of_account(caller.account_id, limit)
        return control.ListRunsResponse(
            run_dict={run.run_id: run_to_wire(run, caller.account_name) for run in runs},
            now=now_iso(),
        )

    async def list_run_series(
        self, request: control.ListRunSeriesRequest, caller: Caller
    ) -> control.ListRunSeriesResponse:
        """Return series of runs, last updated first."""
        if request.HasField("federation_id"):
            check_membership(request.federation_id)
        found = await self._series.find(
            federation=DEFAULT_FEDERATION,
            updated_before=_moment(request),
            limit=request.limit if request.HasField("limit") else None,
        )
        return control.ListRunSeriesResponse(entries=[series_to_wire(series) for series in found])

    async def get_run_series(
        self, request: control.GetRunSeriesRequest, caller: Caller
    ) -> control.GetRunSeriesResponse:
        """Return a series of runs with the context it has come to."""
        found = await self._series.find(series_id=request.series_id)
        if not found:
            raise ApiError(ErrorCode.RUN_SERIES_ID_NOT_FOUND, str(request.series_id))
        return control.GetRunSeriesResponse(
            series=series_to_wire(found[0]), context=await self._series.context(request.series_id)
        )

    async def _run(self, run_id: int) -> Run:
        run = await self._runs.get(run_id)
        if run is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {run_id}")
        return run

    async def _fab_content(self, request: control.StartRunRequest) -> bytes:
        """Return the FAB that a request brings, or means by its hash."""
        if request.fab.hash_str and not request.fab.content:
            fab = await self._fabs.get(request.fab.hash_str)
            if fab is None:
                raise ApiError(ErrorCode.FAB_DOWNLOAD_FAILURE, f"no FAB {request.fab.hash_str}")
            return fab.content
        if request.app_spec:
            raise ApiError(ErrorCode.UNSUPPORTED_FAB_HUB_TRANSPORT, request.app_spec)
        return request.fab.content


def _check_app(content: bytes, request: control.StartRunRequest) -> tuple[FabInfo, Config]:
    """Check an app and the overrides of its configuration; return both as the run will see them.

    A FAB may have 10 MB to be hashed, so this runs on a thread.
    """
    try:
        info = read_fab(content)
        if request.fab.hash_str and request.fab.hash_str != info.fab_hash:
            raise InvalidFab("The app's FAB does not have the hash that came with it.")
        overrides = config_from_wire(request.override_config)
        check_overrides(info.config, overrides)
    except (InvalidFab, InvalidConfig) as exc:
        reason = _cut(str(exc), _REASON_LENGTH)
        raise ApiError(ErrorCode.INVALID_RUN_CONFIG, reason, reason) from exc
    return info, {**info.config, **overrides}


def _describe(info: FabInfo, config: Config) -> str:
    """Return what a series begun by this run is about: what the agent was asked, if it is one."""
    asked = config.get("agent.input")
    if info.task_type is not TaskType.AGENT_APP or not isinstance(asked, str):
        return ""
    return _cut(" ".join(asked.split()), _DESCRIPTION_LENGTH)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


async def _create_run(transaction: Transaction, new: NewRun) -> control.StartRunResponse:
    series, runs = SeriesStore(transaction), Runs(transaction)
    run_id, series_id, context = new_id(), new.series_id, b""
    if series_id is None:
        series_id = await series.begin(new.federation, new.series_description)
    else:
        found = await series.lock(series_id, new.federation)
        if found is None:
            raise ApiError(ErrorCode.RUN_SERIES_ID_NOT_FOUND, f"there is no series {series_id}")
        context = found
    await series.go_on(series_id, next_context(context, run_id, series_id))
    await runs.create(run_id, series_id, new)
    return control.StartRunResponse(run_id=run_id, series_id=series_id, federation=new.federation)


def _moment(request: control.ListRunSeriesRequest) -> datetime | None:
    if not request.HasField("updated_before"):
        return None
    try:
        moment = datetime.fromisoformat(request.updated_before)
        # A moment without a zone would mean the database's own.
        if moment.tzinfo is None:
            raise ValueError("it has no time zone")
    except ValueError as exc:
        text = f"updated_before must be a moment in ISO 8601 with a time zone: {exc}"
        raise ApiError(ErrorCode.MALFORMED_REQUEST, text, text) from exc
    return moment
