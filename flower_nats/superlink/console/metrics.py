"""Numbers in replies over rounds: of each node, and their mean."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flower_nats.store.exchanges import Reading
from flower_nats.superlink.console.rounds import Round

EXAMPLES = "num-examples"
"""The number by which flwr's strategies weigh replies, unless an app says otherwise."""


@dataclass
class Series:
    """One number over the rounds of a run; the lists have one entry for each round, None for none."""

    mean: list[float | None]
    least: list[float | None]
    most: list[float | None]
    count: list[int]
    """Replies that have had it."""
    is_weighted: bool = False
    """Whether the means are weighted by `EXAMPLES`, which every reply has said."""
    by_node: dict[int, list[float | None]] = field(default_factory=dict)


def series_of(rounds: Sequence[Round], readings: Iterable[Reading]) -> Series:
    """Sort what was read into rounds."""
    columns = {session: at for at, one in enumerate(rounds) for session in one.sessions}
    width = len(rounds)
    found: list[list[Reading]] = [[] for _ in rounds]
    by_node: dict[int, list[float | None]] = {}
    for one in readings:
        at = columns.get(one.session_id)
        if at is not None:
            by_node.setdefault(one.node_id, [None] * width)[at] = one.value
            if one.value is not None:
                found[at].append(one)
    every = [one for column in found for one in column]
    is_weighted = bool(every) and all(one.examples is not None for one in every)
    return Series(
        mean=[_mean(column, is_weighted=is_weighted) for column in found],
        least=[min((one.value or 0.0 for one in column), default=None) for column in found],
        most=[max((one.value or 0.0 for one in column), default=None) for column in found],
        count=[len(column) for column in found],
        is_weighted=is_weighted,
        by_node=by_node,
    )


def _mean(readings: Sequence[Reading], *, is_weighted: bool) -> float | None:
    weights = [(one.examples or 0.0) if is_weighted else 1.0 for one in readings]
    whole = sum(weights)
    if whole <= 0:
        return None
    terms = ((one.value or 0.0) * weight for one, weight in zip(readings, weights, strict=True))
    return sum(terms) / whole


def farthest(series: Series, limit: int) -> list[int]:
    """Return so many nodes: those whose last value is farthest from the mean of its round come first."""

    def distance(node_id: int) -> float:
        for value, mean in zip(
            reversed(series.by_node[node_id]), reversed(series.mean), strict=True
        ):
            if value is not None and mean is not None:
                return abs(value - mean)
        return float("inf")

    return sorted(series.by_node, key=lambda one: (-distance(one), one))[:limit]


def round_names(by_type: Mapping[str, Sequence[Round]]) -> Mapping[int, str]:
    """Return the name of the round of each send, by its session."""
    return {
        session: one.name
        for rounds in by_type.values()
        for one in rounds
        for session in one.sessions
    }
