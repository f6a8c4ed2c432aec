"""`flwr log --stream`, as stock follows a run (flwr 1.33 and 1.42 `cli/log.py`)."""

from __future__ import annotations

import asyncio

from flower_nats.model.errors import Outcome
from flower_nats.wire import control_pb2 as control
from harness.channels import Refused
from harness.children import PATIENCE
from harness.wire import Wire

_REFRESH = 60.0
_RECONNECT = 0.5


class LogFollower:
    """Follows a run's log from its first line to the end of the run."""

    def __init__(self, wire: Wire, run_id: int) -> None:
        self.text = ""
        """All text that was printed."""
        self.ends: list[str] = []
        """The refusals of streams that would have ended a stock CLI."""
        self._wire = wire
        self._run_id = run_id
        self._position = 0.0
        self._task = asyncio.create_task(self._follow())

    async def until_end(self, within: float = PATIENCE) -> None:
        """Wait until the server says that the log is complete."""
        async with asyncio.timeout(within):
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Stop following."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._wire.close()

    async def _follow(self) -> None:
        while True:
            try:
                await self._stream()
                return
            except Refused as exc:
                # Over HTTP stock never calls again by itself.
                if self._wire.name == "http" or exc.outcome is not Outcome.DEADLINE_EXCEEDED:
                    # Here a person starts `flwr log` again. With the position, the next stream
                    # brings the lines that this one has missed, and no line twice.
                    self.ends.append(str(exc))
            await asyncio.sleep(_RECONNECT)

    async def _stream(self) -> None:
        request = control.StreamLogsRequest(run_id=self._run_id, after_timestamp=self._position)
        async for answer in self._wire.stream("Control", "StreamLogs", request, _REFRESH):
            self.text += answer.log_output
            self._position = max(self._position, answer.latest_timestamp)
