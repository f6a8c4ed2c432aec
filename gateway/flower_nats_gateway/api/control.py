"""The Control API's streams: a run's log and its events."""

from collections.abc import AsyncGenerator
from dataclasses import replace

from flower_nats.broker import subjects
from flower_nats.broker.hints import Wakes
from flower_nats.broker.rpc import RpcClient
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode
from flower_nats.wire import control_pb2 as control
from flower_nats_gateway.api.service import Stream
from flower_nats_gateway.auth.follower import Followers
from flower_nats_gateway.calls.call import Call, Drain
from flower_nats_gateway.runlog.follow import LogFollower

_EVENTS_INTERVAL = 0.5
"""Seconds between two looks for task events (flwr RUN_EVENTS_STREAM_INTERVAL)."""


class ControlStreams:
    """Serves the streams that `flwr log`, `flwr run --stream` and `flwr chat` follow."""

    def __init__(
        self,
        *,
        log: LogFollower,
        followers: Followers,
        wakes: Wakes,
        rpc: RpcClient,
        drain: Drain,
    ) -> None:
        self._log = log
        self._followers = followers
        self._wakes = wakes
        self._rpc = rpc
        self._drain = drain

    def endpoints(self) -> dict[str, Stream]:
        """Return what this service serves, by method name."""
        return {"StreamLogs": self.stream_logs, "StreamRunEvents": self.stream_run_events}

    async def stream_logs(self, call: Call, caller: Caller) -> AsyncGenerator[bytes, None]:
        """Yield a run's log from a position on."""
        request = call.parse(control.StreamLogsRequest)
        follower = self._followers.follower(call, request.run_id, caller)
        async for answer in self._log.follow(call, follower.check):
            yield answer

    async def stream_run_events(self, call: Call, caller: Caller) -> AsyncGenerator[bytes, None]:
        """Yield the events of a run, until the run has finished.

        Clients of flwr 1.35 and newer get only events of the primary task; older clients get those
        of all tasks.
        """
        caller = replace(caller, client_version=call.client_version)
        primary_only = not caller.is_older_than(1, 35)
        request = call.parse(control.StreamRunEventsRequest)
        run_id, after = request.run_id, request.after_task_event_id
        follower = self._followers.follower(call, run_id, caller)
        with self._wakes.on(subjects.event_run(run_id), subjects.EVENT_ACCOUNTS) as wait:
            while True:
                wait.take()
                await follower.check()
                answer = await self._rpc.ask(
                    "TaskEvents", run_id=run_id, after=after, primary_only=primary_only
                )
                for event in answer["events"]:
                    response = control.StreamRunEventsResponse()
                    response.task_event.ParseFromString(event)
                    after = response.task_event.id
                    yield response.SerializeToString()
                if answer["finished"]:
                    return
                if self._drain.begun and call.wire.follows_on:
                    raise ApiError(ErrorCode.STREAM_ENDS, "the gateway drains")
                await wait.wait(_EVENTS_INTERVAL)
