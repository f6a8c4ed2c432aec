"""Traffic of runs, heartbeats of nodes, history of exchanges: noted here, sent once a second.

One batch of each per second costs the database one statement, however many nodes there are. A
killed gateway loses at most one second of them: a node sends its next heartbeat long before it
would be missed.
"""

import asyncio
import uuid
from dataclasses import astuple, dataclass

from flower_nats.broker.exchange_notes import ExchangeNotes, with_ages
from flower_nats.broker.rpc import RpcClient
from flower_nats.logs import get_logger
from flower_nats.metrics import Metric, by_label
from flower_nats.model.errors import ApiError, Unavailable
from flower_nats.model.exchange import ExchangeNote
from flower_nats_gateway.cluster.presence import Presence

log = get_logger(__name__)

_INTERVAL = 1.0

_HISTORY_PATIENCE = 2.0
"""Seconds that a batch of the history waits for an answer: heartbeats must not wait long for it."""


@dataclass
class _Batch:
    """Usage that is being sent: it is sent again with the same id until a superlink has it."""

    request_id: str
    runs: dict[int, tuple[int, int, float]]


@dataclass
class _History:
    """Notes that are being sent, in the same way as `_Batch`."""

    request_id: str
    notes: list[ExchangeNote]


class Usage:
    """The data that a superlink still has to get."""

    def __init__(
        self, rpc: RpcClient, gateway: str, notes: ExchangeNotes, presence: Presence
    ) -> None:
        self._rpc = rpc
        self._notes = notes
        self._history: _History | None = None
        self._gateway = gateway
        self._presence = presence
        self._beats: dict[int, float] = {}
        self._clocks: dict[int, float] = {}
        self._runs: dict[int, tuple[int, int, float]] = {}
        self._sending: _Batch | None = None
        self._bytes = {"to_nodes": 0, "from_nodes": 0}

    def beat(self, node_id: int, interval: float, clock_ahead: float) -> None:
        """Note a heartbeat; `interval` is the seconds until the node's next.

        `clock_ahead` is the number of seconds by which the node's clock is ahead of ours.
        """
        self._beats[node_id] = interval
        self._clocks[node_id] = round(clock_ahead, 3)

    def traffic(
        self, run_id: int, *, sent: int = 0, received: int = 0, runtime: float = 0.0
    ) -> None:
        """Note bytes sent to and received from SuperNodes for a run, and ClientApp seconds."""
        self._bytes["to_nodes"] += sent
        self._bytes["from_nodes"] += received
        have = self._runs.get(run_id, (0, 0, 0.0))
        self._runs[run_id] = (have[0] + sent, have[1] + received, have[2] + runtime)

    def metrics(self) -> list[Metric]:
        """Return how many bytes there were since this process began."""
        meaning = "Bytes of messages and objects of runs, to and from SuperNodes."
        return [by_label("bytes_total", meaning, "direction", self._bytes)]

    async def send_forever(self) -> None:
        """Send the collected data once a second, until cancelled."""
        while True:
            await asyncio.sleep(_INTERVAL)
            await self.send()

    async def send(self) -> None:
        """Send the collected data; keep it for the next time if no superlink takes it."""
        try:
            await self._send_beats()
            await self._send_traffic()
            await self._send_history()
        except Unavailable as exc:
            log.warning("usage_delayed", reason=exc.detail)
        except ApiError as exc:
            # It would be refused again, and nodes send their next heartbeat soon.
            log.error("usage_refused", reason=exc.detail)
            self._sending = self._history = None

    async def _send_beats(self) -> None:
        beats, self._beats = self._beats, {}
        clocks, self._clocks = self._clocks, {}
        seen = self._presence.take()
        if not (beats or seen):
            return
        try:
            await self._rpc.ask(
                "Heartbeats",
                beats=list(beats.items()),
                clocks=list(clocks.items()),
                seen=seen,
                gateway=self._gateway,
            )
        except Unavailable:
            self._beats = beats | self._beats
            self._clocks = clocks | self._clocks
            self._presence.give_back(seen)
            raise

    async def _send_traffic(self) -> None:
        if self._sending is None and self._runs:
            self._sending = _Batch(uuid.uuid4().hex, self._runs)
            self._runs = {}
        if self._sending is not None:
            runs = [(run_id, *owed) for run_id, owed in self._sending.runs.items()]
            await self._rpc.ask("Usage", request_id=self._sending.request_id, runs=runs)
            self._sending = None

    async def _send_history(self) -> None:
        if self._history is None and (notes := self._notes.take()):
            self._history = _History(uuid.uuid4().hex, notes)
        if self._history is not None:
            notes = with_ages(self._history.notes)
            await self._rpc.ask(
                "Exchanges",
                patience=_HISTORY_PATIENCE,
                request_id=self._history.request_id,
                notes=[*map(astuple, notes)],
            )
            self._history = None
