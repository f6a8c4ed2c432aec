"""Traffic and runtime per run, and heartbeats per node: noted here, sent on once a second.

One batch a second costs the database one statement, however many nodes there are. A gateway that is
killed takes at most one second of them with it: a node sends its next heartbeat long before it would
be missed.
"""

import asyncio

from flower_nats.broker.rpc import RpcClient
from flower_nats.logs import get_logger
from flower_nats.model.errors import ApiError, Unavailable

log = get_logger(__name__)

_INTERVAL = 1.0


class Usage:
    """What is owed to the superlink."""

    def __init__(self, rpc: RpcClient) -> None:
        self._rpc = rpc
        self._beats: dict[int, float] = {}
        self._runs: dict[int, tuple[int, int, float]] = {}

    def beat(self, node_id: int, interval: float) -> None:
        """Note a heartbeat; `interval` is the seconds until the node's next."""
        self._beats[node_id] = interval

    def traffic(
        self, run_id: int, *, sent: int = 0, received: int = 0, runtime: float = 0.0
    ) -> None:
        """Note bytes sent to and received from SuperNodes for a run, and ClientApp seconds."""
        have = self._runs.get(run_id, (0, 0, 0.0))
        self._runs[run_id] = (have[0] + sent, have[1] + received, have[2] + runtime)

    async def send_forever(self) -> None:
        """Send what is owed, once a second, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.send()

    async def send(self) -> None:
        """Send what is owed; keep it for the next time if nobody takes it."""
        beats, self._beats = self._beats, {}
        runs, self._runs = self._runs, {}
        try:
            if beats:
                await self._rpc.ask("Heartbeats", beats=list(beats.items()))
                beats = {}
            if runs:
                await self._rpc.ask("Usage", runs=[(run, *owed) for run, owed in runs.items()])
        except Unavailable as exc:
            log.warning("usage_delayed", reason=exc.detail)
            self._beats = beats | self._beats
            for run_id, (sent, received, runtime) in runs.items():
                self.traffic(run_id, sent=sent, received=received, runtime=runtime)
        except ApiError as exc:
            # It would be refused again: nodes send their next heartbeat soon.
            log.error("usage_refused", reason=exc.detail)
