"""Tasks: what a SuperExec starts as a process."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from flower_nats.model.states import Status


class TaskType(StrEnum):
    """What kind of process a task is (flwr 1.33 `supercore/constant.py` `TaskType`)."""

    SERVER_APP = "flwr-serverapp"
    CLIENT_APP = "flwr-clientapp"
    SIMULATION = "flwr-simulation"
    AGENT_APP = "flwr-agentapp"
    MODEL = "flwr-model"
    CONNECTOR = "flwr-connector"


MAY_CREATE_TASKS = frozenset({TaskType.AGENT_APP, TaskType.SERVER_APP, TaskType.CLIENT_APP})
"""Types of tasks that may create further tasks in their run."""

USES_GRID = frozenset({TaskType.SERVER_APP, TaskType.AGENT_APP})
"""Types of tasks that exchange messages with nodes."""

SINCE: Mapping[tuple[int, int], frozenset[TaskType]] = {
    (1, 30): frozenset({TaskType.SERVER_APP, TaskType.SIMULATION}),
    (1, 31): frozenset({TaskType.AGENT_APP, TaskType.MODEL}),
    (1, 32): frozenset({TaskType.CONNECTOR}),
    (1, 38): frozenset({TaskType.CLIENT_APP}),
}
"""The first release with a SuperExec that launches each type (flwr
`supercore/superexec/plugin`)."""

NEEDS_FAB = frozenset({TaskType.SERVER_APP, TaskType.CLIENT_APP, TaskType.AGENT_APP})
"""Types of task that cannot start without an app."""


@dataclass(frozen=True)
class Task:
    """A task as the database knows it. Only the task's process knows its token."""

    task_id: int
    run_id: int
    type: str
    status: Status
    sub_status: str
    details: str
    pending_at: datetime
    starting_at: datetime | None
    running_at: datetime | None
    finished_at: datetime | None
    fab_hash: str | None
    model_ref: str | None
    connector_ref: str | None

    def log_context(self) -> dict[str, object]:
        """Fields that name this task in a log line."""
        return {"task_id": self.task_id, "run_id": self.run_id, "task_type": self.type}


@dataclass(frozen=True)
class Finished:
    """The changes from finishing a task."""

    task_id: int
    run_id: int
    run_finished: bool
    """True if it was the run's primary task, so that the run and all its tasks finished too."""
    how: str = ""
    """The sub-status: completed, failed or stopped."""
    details: str = ""
    """The reason in words, empty if none was given."""
