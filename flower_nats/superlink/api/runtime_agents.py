"""The Runtime API for agents: their prompts, and the memory of their series."""

from collections.abc import Mapping

from flower_nats.broker.objects import Objects
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.store.compacted_contexts import CompactedContexts
from flower_nats.store.connection import Database, Transaction
from flower_nats.store.idempotency import once
from flower_nats.store.runs import Runs
from flower_nats.store.series import SeriesStore
from flower_nats.store.task_events import Events
from flower_nats.superlink.api.runtime import authenticated
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.superlink.convert import context_to_wire, event_to_wire
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.prompt import prompt_message

_LARGEST_ID = 2**63 - 1
"""Ids from the database are below this; a larger id means after all of them."""


class AgentsApi:
    """Serves the processes of AgentApps."""

    def __init__(self, database: Database, objects: Objects) -> None:
        self._database = database
        self._objects = objects
        self._runs = Runs(database)
        self._series = SeriesStore(database)
        self._events = Events(database)
        self._contexts = CompactedContexts(database)

    def handlers(self) -> Mapping[str, ProtoHandler]:
        """Return the handler of each RPC served here."""
        return {
            "PullMessages": self.pull_prompt,
            "GetRunSeriesEvents": self.get_series_events,
            "GetCompactedContexts": self.get_compacted_contexts,
            "PutCompactedContext": self.put_compacted_context,
        }

    async def pull_prompt(
        self, request: runtime.PullAppMessagesRequest, caller: Caller
    ) -> runtime.PullAppMessagesResponse:
        """Return the agent's prompt, as the message for a pull without instruction ids.

        Gateways serve all other pulls. An agent pulls so once, when it begins, and may repeat the
        pull if the answer was lost. So the message's objects need not stay: housekeeping collects
        them soon.
        """
        task_id, _ = authenticated(caller)
        response = runtime.PullAppMessagesResponse()
        asked = await self._runs.prompt(task_id)
        if asked is None or caller.run_id is None:
            return response
        outgoing, objects = prompt_message(caller.run_id, *asked)
        for object_id, content in objects.items():
            await self._objects.store(caller.run_id, object_id, content)
        response.messages_list.add().ParseFromString(outgoing.message)
        response.message_object_trees.append(outgoing.tree)
        return response

    async def get_series_events(
        self, request: runtime.GetRunSeriesEventsRequest, caller: Caller
    ) -> runtime.GetRunSeriesEventsResponse:
        """Return the events of the primary tasks of the caller's series."""
        before = request.before_event_id if request.HasField("before_event_id") else None
        events = await self._events.of_series(
            await self._series_of(caller),
            after=min(request.after_event_id, _LARGEST_ID),
            before=None if before is None else min(before, _LARGEST_ID),
            names=request.event_types,
            last=request.last_n or None,
        )
        return runtime.GetRunSeriesEventsResponse(events=map(event_to_wire, events))

    async def get_compacted_contexts(
        self, request: runtime.GetCompactedContextsRequest, caller: Caller
    ) -> runtime.GetCompactedContextsResponse:
        """Return summaries of the caller's series, newest first; by default only one."""
        limit = request.limit if request.HasField("limit") else 1
        if limit == 0:
            raise _invalid("`limit` must be above zero.")
        before = request.before_context_id if request.HasField("before_context_id") else None
        contexts = await self._contexts.of(
            await self._series_of(caller),
            limit,
            None if before is None else min(before, _LARGEST_ID),
        )
        return runtime.GetCompactedContextsResponse(contexts=map(context_to_wire, contexts))

    async def put_compacted_context(
        self, request: runtime.PutCompactedContextRequest, caller: Caller
    ) -> runtime.PutCompactedContextResponse:
        """Store a summary of the caller's series."""
        context, series_id = request.context, await self._series_of(caller)
        if not context.text:
            raise _invalid("`text` must be set.")
        if context.series_id not in (0, series_id):
            raise _invalid("`series_id` is not the series of this task.")

        async def put(transaction: Transaction) -> bytes:
            if not await CompactedContexts(transaction).put(
                series_id, context.through_event_id, context.text, context.token_count
            ):
                text = f"series {series_id}, event {context.through_event_id}"
                raise ApiError(ErrorCode.COMPACTED_CONTEXT_ALREADY_EXISTS, text)
            return b""

        await once(self._database, caller.request_id, put)
        return runtime.PutCompactedContextResponse()

    async def _series_of(self, caller: Caller) -> int:
        authenticated(caller)
        series_id = None if caller.run_id is None else await self._series.of_run(caller.run_id)
        if series_id is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"there is no run {caller.run_id}")
        return series_id


def _invalid(text: str) -> ApiError:
    return ApiError(ErrorCode.INVALID_COMPACTED_CONTEXT_REQUEST, text, text)
