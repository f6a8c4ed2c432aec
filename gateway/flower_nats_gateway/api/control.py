"""The Control API's streams: a run's log and its events."""

from collections.abc import AsyncIterator, Callable

from flower_nats.broker import subjects
from flower_nats.broker.hints import Wakes
from flower_nats.broker.rpc import RpcClient
from flower_nats.broker.runlog import RunLogs
from flower_nats.model.caller import Caller
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.states import Status
from flower_nats.wire import control_pb2 as control
from flower_nats_gateway.calls.call import Call, Drain
from flower_nats_gateway.cluster.directory import Directory, RunState
from flower_nats_gateway.runlog.pending import PendingLines

Stream = Callable[[Call, Caller], AsyncIterator[bytes]]
"""Serves one streaming RPC; gives the serialized responses."""

_LOOK_AGAIN = 5.0
"""Seconds after which a quiet stream looks by itself, in case a hint was lost."""

_LOOK_AGAIN_SOON = 0.5
"""The same while there are lines that could not be stored yet."""

_EVENTS_INTERVAL = 0.5
"""Seconds between two looks for task events (flwr RUN_EVENTS_STREAM_INTERVAL)."""

_LARGEST_POSITION = 2**53


class ControlStreams:
    """Serves the streams that `flwr log` and `flwr run --stream` follow."""

    def __init__(
        self,
        logs: RunLogs,
        unstored: PendingLines,
        identities: Directory,
        wakes: Wakes,
        rpc: RpcClient,
        drain: Drain,
    ) -> None:
        self._logs = logs
        self._unstored = unstored
        self._identities = identities
        self._wakes = wakes
        self._rpc = rpc
        self._drain = drain

    def endpoints(self) -> dict[str, Stream]:
        """Return what this service serves, by method name."""
        return {"StreamLogs": self.stream_logs, "StreamRunEvents": self.stream_run_events}

    async def stream_logs(self, call: Call, _caller: Caller) -> AsyncIterator[bytes]:
        """Give a run's log from a position on, until the run has finished.

        By a balancer, only up to the next lines: clients follow on where a stream has ended
        (wire-facts, 1.4), but give up when one breaks. So none is left open half answered, which a
        balancer could not mend if this gateway died. Our log relay calls again at once, `flwr log`
        after half a second. For the same reason a fault of ours ends a stream so.
        """
        try:
            async for response in self._follow_log(call):
                yield response
        except Unavailable as exc:
            raise ApiError(ErrorCode.DRAINING, exc.detail) from exc

    async def _follow_log(self, call: Call) -> AsyncIterator[bytes]:
        request = call.parse(control.StreamLogsRequest)
        run_id, position = request.run_id, _position(request.after_timestamp)
        hints = (subjects.wake_log(run_id), subjects.event_lines(run_id))
        with self._wakes.on(*hints) as wait:
            while True:
                wait.take()
                # These first: lines written before a run finished are then sure to be read.
                unstored = self._unstored.are_waiting(run_id)
                finished = (await self._state(run_id)).status == Status.FINISHED and not unstored
                text, position = await self._logs.read(run_id, position)
                if text:
                    yield control.StreamLogsResponse(
                        log_output=text, latest_timestamp=float(position)
                    ).SerializeToString()
                    if call.balanced and not finished:
                        raise ApiError(ErrorCode.DRAINING, "answered")
                    continue
                if finished:
                    return
                if self._drain.begun:
                    raise ApiError(ErrorCode.DRAINING, "drain")
                await wait.wait(_LOOK_AGAIN_SOON if unstored else _LOOK_AGAIN)

    async def stream_run_events(self, call: Call, _caller: Caller) -> AsyncIterator[bytes]:
        """Give the events of a run's tasks, until the run has finished."""
        request = call.parse(control.StreamRunEventsRequest)
        run_id, after = request.run_id, request.after_task_event_id
        await self._state(run_id)
        with self._wakes.on(subjects.event_run(run_id)) as wait:
            while True:
                wait.take()
                answer = await self._rpc.ask("TaskEvents", run_id=run_id, after=after)
                for event in answer["events"]:
                    response = control.StreamRunEventsResponse()
                    response.task_event.ParseFromString(event)
                    after = response.task_event.id
                    yield response.SerializeToString()
                if answer["finished"]:
                    return
                if self._drain.begun:
                    raise ApiError(ErrorCode.DRAINING, "drain")
                await wait.wait(_EVENTS_INTERVAL)

    async def _state(self, run_id: int) -> RunState:
        state = await self._identities.run(run_id)
        if state is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"run {run_id}")
        return state


def _position(timestamp: float) -> int:
    """Read a position back that was given as a `latest_timestamp`; anything else is the start."""
    return int(timestamp) if 0 < timestamp < _LARGEST_POSITION else 0
