"""Runs, and the series they belong to."""

from dataclasses import dataclass
from datetime import datetime

from flower_nats.model.states import Status

DESCRIPTION_LENGTH = 80
"""Characters of a series' description (flwr 1.42 RUN_SERIES_DESCRIPTION_MAX_LENGTH)."""

MOST_LISTED = 1_000
"""Runs, series or apps in one answer, which then has about half a MiB."""


@dataclass(frozen=True)
class Run:
    """A run as the database knows it, in the state of its primary task."""

    run_id: int
    series_id: int
    primary_task_id: int
    primary_task_type: str
    fab_id: str
    fab_version: str
    fab_hash: str
    override_config: bytes
    """The overrides of the app's configuration: a `Run` of the wire with only that field. Lists of
    runs leave it empty."""
    federation: str
    account_id: str
    bytes_sent: int
    bytes_recv: int
    clientapp_runtime: float
    """Computing time of ClientApps in seconds, summed over nodes."""
    status: Status
    sub_status: str
    details: str
    pending_at: datetime
    starting_at: datetime | None
    running_at: datetime | None
    finished_at: datetime | None
    account_name: str
    """Name of the account that started it."""

    def log_context(self) -> dict[str, object]:
        """Fields that name this run in a log line."""
        return {"run_id": self.run_id, "run_status": str(self.status)}


@dataclass(frozen=True)
class NewRun:
    """The facts that are needed to create a run."""

    fab_id: str
    fab_version: str
    fab_hash: str
    override_config: bytes
    federation: str
    account_id: str
    account_name: str
    primary_task_type: str
    series_id: int | None = None
    """The series to continue, None to begin a new one."""
    series_description: str = ""
    user_prompt: str = ""
    """The prompt of an agent."""
    simulation_config: bytes | None = None
    """How it is simulated (a `SimulationConfig` of the wire), None for a deployment."""


@dataclass(frozen=True)
class Series:
    """Successive runs that share one context."""

    series_id: int
    federation: str
    description: str
    created_at: datetime
    updated_at: datetime
    run_ids: tuple[int, ...]
    """Oldest first."""
    last_status: Status | None
    last_sub_status: str
    last_details: str
