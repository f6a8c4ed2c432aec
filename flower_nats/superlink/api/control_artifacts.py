"""Results of runs: the Control API's part of `flwr pull`, and the download of its link."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flower_nats.logs import get_logger
from flower_nats.model.account import account_token_hash, new_token
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.run import Run
from flower_nats.model.states import Status
from flower_nats.store.audit import note_account, note_object
from flower_nats.store.connection import Database
from flower_nats.store.downloads import Download, Downloads
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore
from flower_nats.superlink.accounts.guard import Guard
from flower_nats.superlink.accounts.identity import Identity
from flower_nats.superlink.codecs import InternalHandler, ProtoHandler
from flower_nats.superlink.runs.artifacts import pack_artifacts
from flower_nats.wire import control_pb2 as control

log = get_logger(__name__)

_MIB = 1024 * 1024

_AT_ONCE = 1
"""Downloads that a superlink packs at once. Each is in memory several times while it is packed."""


class ArtifactsApi:
    """Serves links to the results of runs, and their downloads."""

    def __init__(
        self, database: Database, identity: Identity, guard: Guard, max_artifacts: int
    ) -> None:
        """`max_artifacts`: the most MiB of a run that are given."""
        self._runs = Runs(database)
        self._series = SeriesStore(database)
        self._downloads = Downloads(database)
        self._identity = identity
        self._guard = guard
        self._max_mib = max_artifacts
        self._packing = asyncio.Semaphore(_AT_ONCE)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {"PullArtifacts": self.pull_artifacts}

    def internal_handlers(self) -> Mapping[str, InternalHandler]:
        """Return the handler of each internal RPC, for the page of the link."""
        return {"Download": self.download}

    async def pull_artifacts(
        self, request: control.PullArtifactsRequest, caller: Caller
    ) -> control.PullArtifactsResponse:
        """Return the end of a link; gateways add the rest. A repetition returns another link."""
        run = await self._finished(request.run_id)
        token = new_token("download")
        await self._downloads.begin(
            account_token_hash(token), Download(run.run_id, caller.account_session)
        )
        return control.PullArtifactsResponse(url=f"?token={token}")

    async def download(self, question: Mapping[str, Any], caller: Caller) -> Mapping[str, Any]:
        """{token_hash, address} -> {name, content}: a zip archive, if still permitted."""
        found = await self._downloads.find(question["token_hash"])
        if found is None:
            text = "This link is unknown, or its 15 minutes are over. Run `flwr pull` again."
            raise ApiError(ErrorCode.ACCOUNT_AUTHENTICATION_FAILED, "no such link", text)
        note_object(f"run {found.run_id}")
        caller = replace(caller, account_session=found.session_id)
        caller = await self._identity.identify_session(found.session_id, caller)
        note_account(caller.account_id, caller.account_name)
        request = control.PullArtifactsRequest(run_id=found.run_id)
        await self._guard.check("PullArtifacts", request, caller)
        run = await self._finished(found.run_id)
        async with self._packing:
            context = await self._series.context(run.series_id)
            content = await asyncio.to_thread(pack_artifacts, run, context)
        log.info("artifacts_given", run_id=run.run_id, bytes=len(content))
        return {"name": f"run-{run.run_id}.zip", "content": content}

    async def _finished(self, run_id: int) -> Run:
        """Return a finished run with results that the caller may get."""
        run = await self._runs.get(run_id)
        if run is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {run_id}")
        if run.status is not Status.FINISHED:
            raise ApiError(ErrorCode.PULL_UNFINISHED_RUN, f"run {run_id} is {run.status}")
        newest = (await self._runs.of_series(run.series_id))[-1].run_id
        if newest != run_id:
            text = (
                f"Run {newest} of the same series continued with the context of this run, so "
                f"this context is no longer kept. `flwr pull {newest}` gives the newest one."
            )
            raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
        size = await self._series.context_size(run.series_id)
        if size > self._max_mib * _MIB:
            text = (
                f"The results of run {run_id} have {size / _MIB:.0f} MiB. The superlink gives at most "
                f"{self._max_mib} MiB. Remedy: ask the operator to raise --max-artifact-mib."
            )
            raise ApiError(ErrorCode.FORBIDDEN_ACTION, text, text)
        return run
