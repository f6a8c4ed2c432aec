"""The rounds of a run, derived from the history of its exchanges.

Strategies of older flwr put the round into the `group_id` of messages. Those of newer flwr do not,
but send a round with one call. So the round of an instruction is its group, or else the number of
its call among all calls with messages of the same type.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median

from flower_nats.model.exchange import Outcome
from flower_nats.store.exchanges import NodeHistory, Send

_ONE_BREATH = timedelta(seconds=5)
"""Sends without a group count as one round if they begin within this time and before any reply:
some apps send message by message."""


@dataclass
class Round:
    """The messages of one type that a ServerApp has sent in one round."""

    name: str
    message_type: str
    began_at: datetime | None
    sessions: list[int] = field(default_factory=list)
    first_answered_at: datetime | None = None
    ended_at: datetime | None = None
    """When the last reply came."""
    last_send: datetime | None = None
    sent: int = 0
    answered: int = 0
    failed: int = 0
    bytes_sent: int = 0
    bytes_recv: int = 0

    @property
    def is_over(self) -> bool:
        """Whether every instruction has its answer."""
        return self.answered >= self.sent

    def add(self, send: Send) -> None:
        """Add a send to the round."""
        self.sessions.append(send.session_id)
        self.first_answered_at = _earlier(self.first_answered_at, send.first_answered_at)
        self.ended_at = _later(self.ended_at, send.ended_at)
        self.last_send = send.began_at
        self.sent += send.sent
        self.answered += send.answered
        self.failed += send.failed
        self.bytes_sent += send.bytes_sent
        self.bytes_recv += send.bytes_recv

    def takes(self, send: Send) -> bool:
        """Whether a send without a group belongs to this round."""
        if self.last_send is None or send.began_at is None:
            return False
        answered = self.first_answered_at
        return send.began_at - self.last_send < _ONE_BREATH and (
            answered is None or send.began_at < answered
        )


def rounds_of(sends: Iterable[Send]) -> dict[str, list[Round]]:
    """Return the rounds of a run by message type, oldest first; `sends` are oldest first."""
    found: dict[str, list[Round]] = {}
    for send in sends:
        rounds = found.setdefault(send.message_type, [])
        current = _round_for(send, rounds)
        if current is None:
            name = send.group_id or str(len(rounds) + 1)
            current = Round(name, send.message_type, send.began_at)
            rounds.append(current)
        current.add(send)
    return found


def _round_for(send: Send, rounds: Sequence[Round]) -> Round | None:
    if send.group_id:
        return next((one for one in reversed(rounds) if one.name == send.group_id), None)
    return rounds[-1] if rounds and rounds[-1].takes(send) else None


_MOST_EXCHANGES = 200_000
"""Exchanges for one answer: database and superlink need less than a second for them."""


def newest(rounds: Sequence[Round], most: int) -> Sequence[Round]:
    """Return the newest rounds, at most `count`, within the limit of exchanges for one answer."""
    exchanges = 0
    for number, one in enumerate(reversed(rounds)):
        exchanges += one.sent
        if number == most or (number and exchanges > _MOST_EXCHANGES):
            return rounds[len(rounds) - number :]
    return rounds


WAITS, WORKS, UNNOTED = "w", "t", "n"
_LETTERS = {Outcome.ANSWERED: "a", Outcome.FAILED: "f", Outcome.UNANSWERED: "u"}


@dataclass
class NodeRow:
    """The results of one node in the rounds of one type."""

    node_id: int
    states: list[str]
    """One letter per round: a(nswered), f(ailed), u(nanswered: the runtime answered in its place),
    w(aits for its node), t(aken: the node is at it), n(o answer was noted), - (not asked)."""
    ms: list[int]
    """Milliseconds from release to reply, or to now; -1 if unknown."""
    taken_ms: list[int] = field(default_factory=list)
    """Milliseconds from release to confirmation; -1 if not confirmed or unknown."""
    last_of: int = 0
    """Rounds in which it was the last of several nodes to answer."""

    @property
    def failed(self) -> int:
        """Rounds that ended with an error."""
        return self.states.count("f") + self.states.count("u")

    @property
    def median_ms(self) -> float | None:
        """The median over the rounds that it has answered."""
        known = [
            ms for state, ms in zip(self.states, self.ms, strict=True) if state == "a" and ms >= 0
        ]
        return median(known) if known else None

    @property
    def waiting_ms(self) -> int:
        """How long the newest round has waited for it; -1 if the round does not wait."""
        return self.ms[-1] if self.states and self.states[-1] in (WAITS, WORKS) else -1


def rows_of(
    rounds: Sequence[Round], histories: Iterable[NodeHistory], *, is_over: bool
) -> list[NodeRow]:
    """Return the results of each node, those that need attention first. `is_over`: the run is."""
    columns = {session: number for number, one in enumerate(rounds) for session in one.sessions}
    every = (_row(history, columns, len(rounds), is_over=is_over) for history in histories)
    rows = [row for row in every if row is not None]
    _note_last(rows, len(rounds))
    return sorted(rows, key=_need, reverse=True)


def _row(
    history: NodeHistory, columns: Mapping[int, int], width: int, *, is_over: bool
) -> NodeRow | None:
    states, ms, taken_ms = ["-"] * width, [-1] * width, [-1] * width
    asked = False
    for session, outcome, wait, work in zip(
        history.sessions, history.outcomes, history.waits, history.works, strict=True
    ):
        at = columns.get(session)
        if at is None:
            continue
        asked = True
        ms[at], taken_ms[at] = work, wait
        if outcome:
            states[at] = _LETTERS[Outcome(outcome)]
        else:
            states[at] = WAITS if wait < 0 else WORKS
    if not is_over:
        # The node may still answer instructions that it got after its last reply.
        open_from = max((at for at, state in enumerate(states) if state == "a"), default=-1) + 1
    else:
        open_from = width
    for at in range(open_from):
        if states[at] in (WAITS, WORKS):
            # The note was lost with its gateway, or nothing waits for the reply any more.
            states[at], ms[at] = UNNOTED, -1
    return NodeRow(history.node_id, states, ms, taken_ms) if asked else None


def _note_last(rows: Sequence[NodeRow], width: int) -> None:
    for at in range(width):
        answered = [row for row in rows if row.states[at] == "a"]
        if len(answered) > 1:
            max(answered, key=lambda row: row.ms[at]).last_of += 1


def _need(row: NodeRow) -> tuple[bool, int, int, float]:
    """How much a node needs attention. A round waits about equally long for all its nodes."""
    return row.waiting_ms >= 0, row.failed, row.last_of, row.median_ms or 0.0


def slowest(rows: Iterable[NodeRow], at: int) -> NodeRow | None:
    """Return the node that took longest in a round, or for which the round has waited longest."""
    asked = [row for row in rows if row.states[at] in ("a", WAITS, WORKS) and row.ms[at] >= 0]
    return max(asked, key=lambda row: row.ms[at], default=None)


def median_ms(rows: Iterable[NodeRow], at: int) -> float | None:
    """Return the median time of the nodes that have answered in a round."""
    known = [row.ms[at] for row in rows if row.states[at] == "a" and row.ms[at] >= 0]
    return median(known) if known else None


def expected_end(rounds: Sequence[Round], total: int | None, now: datetime) -> datetime | None:
    """Return the expected end of the last round, if rounds take as long as the last few.

    None if it cannot be estimated: `total` is not known, or no round is over yet.
    """
    starts = [one.began_at for one in rounds if one.began_at is not None]
    if total is None or len(starts) < 2 or total < len(rounds):
        return None
    latest = starts[-_LOOK_BACK:]
    each = median((later - earlier).total_seconds() for earlier, later in pairwise(latest))
    left = timedelta(seconds=each * (total - len(rounds) + 1))
    return max(now, starts[-1] + left)


_LOOK_BACK = 6
"""The end of a run is estimated from this many last rounds."""


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min(filter(None, (one, other)), default=None)


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max(filter(None, (one, other)), default=None)
