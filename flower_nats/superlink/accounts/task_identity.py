"""Which task makes a call of the Runtime API. No other module decides this.

A gateway brings evidence, the hash of the token that came with the call. Its other statements about
tasks and runs are ignored.
"""

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.model.states import Status
from flower_nats.store.connection import Database
from flower_nats.store.tasks import Tasks
from flower_nats.superlink.codecs import ProtoHandler
from flower_nats.wire.methods import BY_NAME, CallerKind

_CHECKED_THERE = frozenset({"SendTaskHeartbeat", "PullTaskInput", "PushTaskOutput"})
"""Calls with statements that look up the token themselves, each with its own answer without one."""


class TaskIdentity:
    """Tells the task of a caller."""

    def __init__(self, database: Database) -> None:
        self._tasks = Tasks(database)

    def guard(self, name: str, handler: ProtoHandler) -> ProtoHandler:
        """Wrap a handler of the Runtime API: it gets callers with a known task."""
        method = BY_NAME[("Runtime", name)]
        if method.caller is not CallerKind.TASK or name in _CHECKED_THERE:
            return handler

        async def serve(request: Any, caller: Caller) -> ProtoMessage:
            return await handler(request, await self._identify(caller))

        return serve

    async def _identify(self, caller: Caller) -> Caller:
        task = await self._tasks.by_token(caller.task_token) if caller.task_token else None
        if task is None or task.status is Status.FINISHED:
            reason = "no task has this token" if task is None else "this task is finished"
            raise ApiError(ErrorCode.AUTHENTICATION_FAILED, reason)
        return replace(caller, task_id=task.task_id, run_id=task.run_id, task_type=task.type)
