"""Numbers in replies over rounds: summed, and for single nodes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flower_nats.store.exchanges import Exchanges, Number, Reading
from flower_nats.superlink.console.rounds import Round

EXAMPLES = "num-examples"
"""The number by which flwr's strategies weight replies, unless an app sets another."""

_VALUES = 10_000
"""Values of single nodes in one answer: some 100 kB. With many rounds, it has fewer nodes."""

_SPREAD = ("least", "low", "middle", "high", "most")

_DIGITS = 6
"""Significant digits of single nodes' values: a plot cannot show more."""


async def number_over_rounds(
    exchanges: Exchanges, run_id: int, wanted: tuple[str, str], rounds: Sequence[Round], rows: int
) -> dict[str, Any]:
    """Return one number, `wanted` by message type and name, summed over each round.

    {mean, least, low, middle, high, most, count}: lists with one entry for each round, None without
    a value; {is_weighted}: whether means are weighted by `EXAMPLES`, which needs that number in
    every reply; {by_node, nodes_in_all}: the values of at most `rows` nodes, those with the last
    value farthest from the mean.
    """
    columns = {session: at for at, one in enumerate(rounds) for session in one.sessions}
    number = Number(run_id, *wanted, columns)
    found = {one.at: one for one in await exchanges.metric_by_round(number, EXAMPLES)}
    is_weighted = bool(found) and not any(one.without_examples for one in found.values())
    kind = "weighted_mean" if is_weighted else "plain_mean"
    over = [found.get(at) for at in range(len(rounds))]
    means: list[float | None] = [getattr(one, kind, None) for one in over]
    limit = min(rows, max(1, _VALUES // max(1, len(rounds))))
    nodes, in_all = await exchanges.metric_farthest(number, means, limit)
    readings = await exchanges.metric_of_nodes(number, nodes) if nodes else []
    return {
        "mean": means,
        "is_weighted": is_weighted,
        "count": [0 if one is None else one.count for one in over],
        **{name: [getattr(one, name, None) for one in over] for name in _SPREAD},
        "by_node": _by_node(nodes, columns, len(rounds), readings),
        "nodes_in_all": in_all,
    }


def _by_node(
    nodes: Sequence[int], columns: Mapping[int, int], width: int, readings: Iterable[Reading]
) -> Mapping[int, list[float | None]]:
    by_node: dict[int, list[float | None]] = {node: [None] * width for node in nodes}
    for one in readings:
        value = None if one.value is None else float(f"{one.value:.{_DIGITS}g}")
        by_node[one.node_id][columns[one.session_id]] = value
    return by_node


def round_names(by_type: Mapping[str, Sequence[Round]]) -> Mapping[int, str]:
    """Return the name of the round of each send, by its session."""
    return {
        session: one.name
        for rounds in by_type.values()
        for one in rounds
        for session in one.sessions
    }
