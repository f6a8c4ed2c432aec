"""How large a chaos run is, and how rough."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What is run, and what is done to it. Times are in seconds."""

    runs: int = 100
    at_once: int = 16
    """Runs that are under way at any time."""

    rounds: int = 4
    """Rounds of each run."""

    nodes: int = 50
    real_nodes: int = 2
    """How many of them are real SuperNode processes: they take two seconds of CPU per message."""

    nodes_per_run: int = 5
    real_runs: int = 3
    """Runs that ask real SuperNodes, too."""

    work_seconds: tuple[float, float] = (0.2, 1.5)
    """What a ClientApp takes for a message: uniform between these."""

    replicas: int = 3
    """Gateways, and superlinks; from 3 on there are three NATS servers, else one."""

    every: float = 5.0
    """Between two kills."""

    kills: int | None = None
    """After which chaos ends. None: it ends with the last run."""

    down: float = 3.0
    """From a kill to the start of the process."""

    seed: int = 1
    limit: float = 900.0
    """After which what is not finished is given up."""

    stock_limit: float = 400.0
    """The same for stock, which may never finish."""

    @property
    def nats_servers(self) -> int:
        """A cluster needs three."""
        return 3 if self.replicas >= 3 else 1

    @property
    def processes(self) -> int:
        """How many may be killed: gateways, superlinks, NATS servers and PostgreSQL."""
        return 2 * self.replicas + self.nats_servers + 1


FULL = Plan()
"""What the issue asks for."""

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
"""What CI has time for. On a busy machine processes take longer to start than there is between two
kills: runs end once the kills have ended."""
