"""PushLogs: stores a run's log lines once, although clients send some of them twice.

A stock ServerApp sends its lines again until a call is answered. If our answer was lost (its
gateway was killed, its connection cut), the lines are already stored. The client sends one batch
after the other, so only the newest lines of its task can come again. If they do, either

- the client got the earlier answer: the app prints the same text again, which belongs in the log;
- or the client did not get it: the lines must not be stored twice.

The request does not tell which, but its way does:

- A client that is connected to us directly got the answer if this call comes over the connection on
  which we gave it: within a connection nothing overtakes and nothing is lost. If it comes over
  another one, the old one broke. (It may have broken when nothing was on its way, and the app may then
  print exactly what it printed last: those lines are taken for a repetition. We cannot know better.)
- Behind a balancer that makes the call again itself, the call has the same id.
- Behind any other balancer that speaks HTTP, connections say nothing about the client's. There an
  answer that some gateway has given counts as received. (It may have been lost between the balancer
  and the client: then lines show twice.) Gateways tell each other by the hint that wakes who follows
  the log.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from flower_nats.broker.connection import Record
from flower_nats.broker.runlog import RunLogs
from flower_nats.model.caller import Caller
from flower_nats_gateway.calls.call import Call
from flower_nats_gateway.runlog.pending import PendingLines

_TASK = "Fn-Task"
_CONNECTION = "Fn-Connection"
_RUNS = 10_000
"""Runs with a remembered newest answered position."""


class Answered:
    """The position in each run's log up to which calls have been answered."""

    def __init__(self) -> None:
        self._heard: OrderedDict[int, int] = OrderedDict()
        self._given: OrderedDict[int, int] = OrderedDict()

    def by_anyone(self, run_id: int, position: int) -> bool:
        """Whether some gateway has stored lines up to this position, and so has answered."""
        return position <= self._heard.get(run_id, 0)

    def by_us(self, run_id: int, position: int) -> bool:
        """Whether this gateway has answered up to this position."""
        return position <= self._given.get(run_id, 0)

    def note(self, run_id: int, position: int) -> None:
        """Note that this gateway now answers a call."""
        _remember(self._given, run_id, position)

    def note_stored(self, run_id: int, payload: bytes) -> None:
        """Note the hint of a gateway that has stored lines up to a position."""
        if payload.isdigit():
            _remember(self._heard, run_id, int(payload))


@dataclass(frozen=True)
class _Source:
    """One PushLogs call."""

    request_id: str
    run_id: int
    task_id: int
    connection: str
    """The client's own connection to this gateway, empty behind a balancer."""
    answered: Answered

    @property
    def headers(self) -> Mapping[str, str]:
        return {_TASK: str(self.task_id), _CONNECTION: self.connection}

    def may_repeat(self, earlier: Record) -> bool:
        if earlier.headers.get(_TASK) != str(self.task_id):
            return False
        if not self.connection:
            return not self.answered.by_anyone(self.run_id, earlier.sequence)
        same = earlier.headers.get(_CONNECTION) == self.connection
        return not (same and self.answered.by_us(self.run_id, earlier.sequence))


class LogIntake:
    """Stores the log lines of tasks."""

    def __init__(
        self, logs: RunLogs, pending_lines: PendingLines, answered: Answered, gateway: str
    ) -> None:
        self._logs = logs
        self._pending_lines = pending_lines
        self._gateway = gateway
        self._answered = answered

    async def append(self, call: Call, caller: Caller, text: str) -> None:
        """Add lines to the log of the caller's run, unless an earlier call has stored them."""
        assert caller.run_id is not None and caller.task_id is not None
        client = call.client_connection
        connection = "" if client is None else f"{self._gateway} {client}"
        source = _Source(call.request_id, caller.run_id, caller.task_id, connection, self._answered)
        append = self._logs.append(caller.run_id, text, source)
        position = await self._pending_lines.until_stored(caller.run_id, append)
        self._answered.note(caller.run_id, position)


def _remember(positions: OrderedDict[int, int], run_id: int, position: int) -> None:
    positions[run_id] = max(position, positions.pop(run_id, 0))
    if len(positions) > _RUNS:
        positions.popitem(last=False)
