"""The size of a chaos run, and the rate of its kills."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """The load and the kills. Times are in seconds."""

    runs: int = 100
    at_once: int = 16
    """Runs that are under way at any time."""

    rounds: int = 4
    """Rounds of each run."""

    nodes: int = 50
    real_nodes: int = 2
    """Nodes that are real SuperNode processes: each takes two seconds of CPU per message."""

    nodes_per_run: int = 5
    real_runs: int = 3
    """Runs with the real SuperNodes, too."""

    work_seconds: tuple[float, float] = (0.2, 1.5)
    """Time of a ClientApp for a message: uniform between these."""

    replicas: int = 3
    """Gateways, and superlinks; from 3 on, there are three NATS servers, otherwise one."""

    every: float = 5.0
    """Time between two kills."""

    kills: int | None = None
    """Number of kills. None: the kills end with the last run."""

    down: float = 3.0
    """Time from a kill to the start of the process."""

    seed: int = 1
    limit: float = 900.0
    """Runs that are not finished after this time are given up."""

    stock_limit: float = 400.0
    """The same for stock, which may never finish."""

    @property
    def nats_servers(self) -> int:
        """A cluster needs three servers."""
        return 3 if self.replicas >= 3 else 1

    @property
    def processes(self) -> int:
        """The number of processes to kill: gateways, superlinks, NATS servers and PostgreSQL."""
        return 2 * self.replicas + self.nats_servers + 1


FULL = Plan()
"""The size for a full measurement."""

QUICK = Plan(
    runs=8,
    at_once=8,
    rounds=3,
    nodes=12,
    real_nodes=0,
    real_runs=0,
    nodes_per_run=4,
    every=4,
    kills=8,
    limit=400,
)
"""The size for CI. On a busy machine, the start of a process may take longer than the time between
two kills. The kills are limited, so runs end after them."""
