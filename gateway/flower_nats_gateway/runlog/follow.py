"""Following a run's log."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from flower_nats.broker import subjects
from flower_nats.broker.hints import Wait, Wakes
from flower_nats.broker.runlog import RunLogs
from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError, ErrorCode, Unavailable
from flower_nats.model.states import Status
from flower_nats.model.visible import visible_lines
from flower_nats.wire import control_pb2 as control
from flower_nats_gateway.calls.call import Call, Drain
from flower_nats_gateway.cluster.directory import Directory
from flower_nats_gateway.runlog.pending import PendingLines
from flower_nats_gateway.runlog.room import PIECE, WANTED_BYTES, LogRoom, wanted_bytes

log = get_logger(__name__)

_LOOK_AGAIN = 5.0
"""Seconds after which a quiet stream looks without a hint, in case a hint was lost."""

_LOOK_AGAIN_SOON = 0.5
"""The same while lines could not be stored yet, or while the broker is away."""

_LARGEST_POSITION = 2**53

_READS = 8
"""Logs that are read at once: the broker disconnects a client that requests more than it can
send."""

Check = Callable[[], Awaitable[None]]
"""Raises `ApiError` if its caller may not follow the run any more."""


class LogFollower:
    """Yields a run's log from a position on, until the run has finished."""

    def __init__(
        self,
        *,
        logs: RunLogs,
        pending_lines: PendingLines,
        directory: Directory,
        wakes: Wakes,
        drain: Drain,
    ) -> None:
        self._logs = logs
        self._pending_lines = pending_lines
        self._directory = directory
        self._wakes = wakes
        self._drain = drain
        self._room = LogRoom()
        self._reads = asyncio.Semaphore(_READS)

    async def follow(self, call: Call, check: Check) -> AsyncGenerator[bytes, None]:
        """Yield the log that a call asks for, as long as `check` allows it.

        Some clients call again if a stream ends early (`Wire.follows_on`), but give up if it
        breaks. For them, a draining gateway and a fault of the runtime end the stream. Behind a
        balancer, each answer ends the stream, because a balancer could not repair an open stream if
        this gateway died. The log relay calls again at once, `flwr log` after half a second.

        For other clients the end of the stream is the end of the log. Their streams go on during
        faults of the runtime, and as long as this gateway lives.
        """
        request = call.parse(control.StreamLogsRequest)
        run_id, position = request.run_id, _position(request.after_timestamp)
        hints = (
            subjects.wake_log(run_id),
            subjects.event_lines(run_id),
            subjects.EVENT_ACCOUNTS,
        )
        begun, wanted = False, wanted_bytes(call.text(WANTED_BYTES))
        with self._room.follower(), self._wakes.on(*hints) as wait:
            while True:
                wait.take()
                with self._room.take(wanted) as size:
                    try:
                        await check()
                        answer, position, finished = await self._look(run_id, position, size)
                    except Unavailable as exc:
                        fault: Unavailable | None = exc
                    else:
                        fault, begun = None, True
                        if answer:
                            yield answer
                if fault is not None:
                    await self._outlast(call, fault, wait, begun=begun)
                    continue
                if answer:
                    wanted = PIECE
                    if call.wire.follows_on and call.balanced and not finished:
                        raise ApiError(ErrorCode.STREAM_ENDS, "answered")
                    continue
                if finished:
                    return
                if call.wire.follows_on and self._drain.begun:
                    raise ApiError(ErrorCode.STREAM_ENDS, "the gateway drains")
                await wait.wait(self._pause(run_id))

    async def _look(self, run_id: int, position: int, size: int) -> tuple[bytes, int, bool]:
        """Return the next answer (empty for none), the position after it, and whether the log is
        complete."""
        # These are read first, so that all lines from before the run's end are read.
        pending = self._pending_lines.are_waiting(run_id)
        state = await self._directory.run(run_id)
        if state is None:
            raise ApiError(ErrorCode.RUN_ID_NOT_FOUND, f"run {run_id}")
        finished = state.status == Status.FINISHED and not pending
        async with self._reads:
            text, position = await self._logs.read(run_id, position, size)
        return _answer(text, position) if text else b"", position, finished

    def _pause(self, run_id: int) -> float:
        return _LOOK_AGAIN_SOON if self._pending_lines.are_waiting(run_id) else _LOOK_AGAIN

    async def _outlast(self, call: Call, fault: Unavailable, wait: Wait, *, begun: bool) -> None:
        """Wait until a fault of the runtime has passed, if the client will not call again."""
        if call.wire.follows_on:
            raise ApiError(ErrorCode.STREAM_ENDS, fault.detail) from fault
        if not begun:
            raise fault
        log.warning("log_stream_delayed", reason=fault.detail)
        await wait.wait(_LOOK_AGAIN_SOON)


def _answer(text: str, position: int) -> bytes:
    return control.StreamLogsResponse(
        log_output=visible_lines(text), latest_timestamp=float(position)
    ).SerializeToString()


def _position(timestamp: float) -> int:
    """Parse a position from a `latest_timestamp`; any other value means the start."""
    return int(timestamp) if 0 < timestamp < _LARGEST_POSITION else 0
