"""The lines of the table with their promises: the full set, and a short one."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.scenarios import Exchange, Goal, Idle, LogLines, RealRun, Scenario
from benchmarks.targets import StockInMemory, StockSqlite

_IN_MEMORY = StockInMemory.name
_SQLITE = StockSqlite.name
_KB = 1000
_MB = 1000 * _KB
_HALF = Goal(1 / 2, _IN_MEMORY)

_TEN = Exchange(
    "exchange-10", "10 nodes, 1 KB", (Goal(1 / 15, _IN_MEMORY),), nodes=10, size=_KB, repeats=5
)
_HUNDRED = Exchange(
    "exchange-100",
    "100 nodes, 1 KB",
    (_HALF, Goal(1 / 10, _SQLITE)),
    nodes=100,
    size=_KB,
    repeats=3,
)
_FIVE_HUNDRED = Exchange(
    "exchange-500", "500 nodes, 1 KB", (_HALF,), nodes=500, size=_KB, repeats=3, budget=40
)
_BULK = Exchange(
    "bulk",
    "10 nodes, 50 MB each way",
    (_HALF,),
    edge_memory_limit=400 * _MB,
    nodes=10,
    size=50 * _MB,
    repeats=3,
)
_IDLE = Idle("idle", "1,000 idle nodes (cores)", (Goal(1 / 8, _IN_MEMORY, "cpu"),), nodes=1000)
_REAL_RUN = RealRun("real-run", "real run: 2 SuperNodes, 3 rounds of nothing", (_HALF,))

_LOG = LogLines("log", "a log line, pushed to seen by `flwr log`", (), skip=(_SQLITE,))

FULL: tuple[Scenario, ...] = (_TEN, _HUNDRED, _FIVE_HUNDRED, _BULK, _IDLE, _REAL_RUN, _LOG)
"""Every line."""

QUICK: tuple[Scenario, ...] = (
    replace(_TEN, repeats=2),
    replace(_HUNDRED, repeats=1, goals=(_HALF,), skip=(_SQLITE,)),
    replace(_BULK, repeats=1, skip=(_SQLITE,)),
)
"""A look in under two minutes."""
