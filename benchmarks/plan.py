"""The lines of the table with their promises: the full set, and a short one."""

from __future__ import annotations

from benchmarks.scenarios import Exchange, Goal, Idle, RealRun, Scenario
from benchmarks.targets import StockInMemory, StockSqlite

_IN_MEMORY = StockInMemory.name
_SQLITE = StockSqlite.name
_KB = 1000
_MB = 1000 * _KB
_EDGE_LIMIT = 400 * _MB
_TENTH_LINE = (Goal(1 / 15, _IN_MEMORY),)
_HUNDREDTH_LINE = (Goal(1 / 2, _IN_MEMORY), Goal(1 / 10, _SQLITE))
_HALF = (Goal(1 / 2, _IN_MEMORY),)
_IDLE = (Goal(1 / 8, _IN_MEMORY, "cpu"),)

FULL: tuple[Scenario, ...] = (
    Exchange("exchange-10", "10 nodes, 1 KB", _TENTH_LINE, nodes=10, size=_KB),
    Exchange("exchange-100", "100 nodes, 1 KB", _HUNDREDTH_LINE, nodes=100, size=_KB, repeats=3),
    Exchange("exchange-500", "500 nodes, 1 KB", _HALF, nodes=500, size=_KB, repeats=3),
    Exchange(
        "bulk",
        "10 nodes, 50 MB each way",
        _HALF,
        edge_memory_limit=_EDGE_LIMIT,
        nodes=10,
        size=50 * _MB,
        repeats=3,
    ),
    Idle("idle", "1,000 idle nodes (cores)", _IDLE),
    RealRun("real-run", "real run: 2 SuperNodes, 3 rounds of nothing", _HALF),
)
"""Every line of the issue's table."""

QUICK: tuple[Scenario, ...] = (
    Exchange("exchange-10", "10 nodes, 1 KB", _TENTH_LINE, nodes=10, size=_KB, repeats=2),
    Exchange(
        "exchange-100",
        "100 nodes, 1 KB",
        _HUNDREDTH_LINE[:1],
        (_SQLITE,),
        nodes=100,
        size=_KB,
        repeats=1,
    ),
    Exchange(
        "bulk",
        "10 nodes, 50 MB each way",
        _HALF,
        (_SQLITE,),
        _EDGE_LIMIT,
        nodes=10,
        size=50 * _MB,
        repeats=1,
    ),
    Idle("idle", "200 idle nodes (cores)", _IDLE, (_SQLITE,), nodes=200, seconds=8),
)
"""A look in under two minutes."""
