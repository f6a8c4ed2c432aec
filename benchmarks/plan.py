"""The lines of the tables with their promises: the full set for each wire, and a short one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from benchmarks.processes import allowed_files
from benchmarks.scenarios import (
    Ceiling,
    Exchange,
    Goal,
    Growth,
    Idle,
    LogLines,
    RealRun,
    Reconnect,
    Scenario,
)
from benchmarks.targets import StockInMemory, StockSqlite
from harness.flower import GRPC, HTTP

_IN_MEMORY = StockInMemory.name
_SQLITE = StockSqlite.name
_KB = 1000
_MB = 1000 * _KB
_GB = 1000 * _MB


def _of_memory(part: float) -> Goal:
    return Goal(1 / part, _IN_MEMORY)


_TEN = Exchange("exchange-10", "10 nodes, 1 KB", (_of_memory(15),), nodes=10, size=_KB, repeats=5)
_HUNDRED = Exchange(
    "exchange-100",
    "100 nodes, 1 KB",
    (_of_memory(2), Goal(1 / 10, _SQLITE)),
    nodes=100,
    size=_KB,
    repeats=3,
)
_FIVE_HUNDRED = Exchange(
    "exchange-500",
    "500 nodes, 1 KB",
    (_of_memory(2),),
    nodes=500,
    size=_KB,
    repeats=3,
    budget=40,
)
_BULK = Exchange(
    "bulk",
    "10 nodes, 50 MB each way",
    (_of_memory(1),),
    edge_memory_limit=400 * _MB,
    nodes=10,
    size=50 * _MB,
    repeats=3,
)
# Over gRPC, a poll is held for 50 s, and the node's sleep of 3 s follows.
_IDLE = Idle(
    "idle",
    "1,000 idle nodes (cores)",
    (Goal(1 / 8, _IN_MEMORY, "cpu"),),
    nodes=1000,
    watched=54,
)
# Connections of a node at once: one for polls, one for heartbeats, and one that is being closed.
_FILES_PER_NODE = 3


def _reconnect(nodes: int) -> Reconnect:
    nodes = min(nodes, allowed_files() // _FILES_PER_NODE)
    title = f"{nodes:,} nodes reconnect within a second"
    promise = Ceiling(30.0, "seconds")
    return Reconnect("reconnect", title, (promise,), skip=(_SQLITE,), nodes=nodes)


_FEW = 200
_RECONNECT = _reconnect(5000)
_REAL_RUN = RealRun("real-run", "real run: 2 SuperNodes, 3 rounds of nothing", (_of_memory(2),))
_LOG = LogLines("log", "a log line, pushed to seen by `flwr log`", (), skip=(_SQLITE,))

_ONLY_MEMORY = (_SQLITE,)
_OVER_HTTP: tuple[Scenario, ...] = (
    replace(_TEN, goals=(_of_memory(15),)),
    replace(_HUNDRED, goals=(_of_memory(12),)),
    # Linear: at most 8 s where 100 nodes take 1.5.
    replace(_FIVE_HUNDRED, goals=(_of_memory(2), Growth(8 / 1.5, _HUNDRED.name)), patience=200),
    Exchange(
        "exchange-100-tls",
        "100 nodes, 1 KB, TLS",
        (_of_memory(8),),
        tls=True,
        nodes=100,
        size=_KB,
        repeats=3,
        silence=6.0,
    ),
    replace(_BULK, goals=(_of_memory(2),)),
    Exchange(
        "bulk-1gb",
        "2 nodes, 1 GB each way",
        (_of_memory(1),),
        edge_memory_limit=500 * _MB,
        nodes=2,
        size=_GB,
    ),
    # A poll is held for 20 s over HTTP.
    replace(_IDLE, goals=(Ceiling(1 / 15),), watched=69),
    _RECONNECT,
    replace(_REAL_RUN, goals=(_of_memory(2.4),)),
    _LOG,
)

FULL: Mapping[str, tuple[Scenario, ...]] = {
    GRPC: (_TEN, _HUNDRED, _FIVE_HUNDRED, _BULK, _IDLE, _RECONNECT, _REAL_RUN, _LOG),
    HTTP: tuple(replace(one, skip=_ONLY_MEMORY) for one in _OVER_HTTP),
}
"""Every line, by wire."""

QUICK: Mapping[str, tuple[Scenario, ...]] = {
    GRPC: (
        replace(_TEN, repeats=2),
        replace(_HUNDRED, repeats=1, goals=(_of_memory(2),), skip=_ONLY_MEMORY),
        replace(_BULK, repeats=1, skip=_ONLY_MEMORY),
        _reconnect(_FEW),
    ),
    HTTP: (
        replace(_TEN, repeats=2, skip=_ONLY_MEMORY),
        replace(_HUNDRED, repeats=1, goals=(_of_memory(12),), skip=_ONLY_MEMORY),
        replace(_BULK, repeats=1, goals=(_of_memory(2),), skip=_ONLY_MEMORY),
        _reconnect(_FEW),
    ),
}
"""A short set, for a few minutes."""
