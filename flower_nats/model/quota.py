"""Limits of a federation or an account: runs at once, and how long a run may take."""

from dataclasses import dataclass

EACH = "*"
"""The name of the limits for each federation, or each account, without limits of its own."""

KINDS = ("federation", "account")

MOST_RUNS = 1_000_000
"""The largest limit of runs at once."""

LONGEST_RUN_DAYS = 3_650
"""The largest limit of a run's time, in days."""


class BadQuota(ValueError):
    """A limit cannot be kept, for a reason that is told to who has set it."""


def check_limits(*, runs_at_once: int | None = None, run_seconds: float | None = None) -> None:
    """Check limits before they are stored; None is no limit. Raises `BadQuota`."""
    # NaN is in no range.
    if runs_at_once is not None and not 0 <= runs_at_once <= MOST_RUNS:
        raise BadQuota(f"The runs at once must be a number from 0 to {MOST_RUNS}, or none.")
    if run_seconds is not None and not 0 < run_seconds <= LONGEST_RUN_DAYS * 86_400:
        raise BadQuota(
            f"The run time must be above zero, and at most {LONGEST_RUN_DAYS} days, or none."
        )


@dataclass(frozen=True)
class Quota:
    """The limits of a federation or an account; None for no limit."""

    kind: str
    """One of `KINDS`."""
    name: str
    """`@account/name` of a federation, the name of an account, or `EACH`."""
    runs_at_once: int | None = None
    """Runs that have begun and not finished. Further runs stay pending, in order of arrival."""
    run_seconds: float | None = None
    """Seconds that a run may take after the start of its app."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing is limited."""
        return self.runs_at_once is None and self.run_seconds is None


@dataclass(frozen=True)
class Overdue:
    """A run that has taken longer than allowed."""

    primary_task_id: int
    run_seconds: float
    kind: str
    name: str

    def reason(self) -> str:
        """Say why the run ends."""
        return (
            f"The run took longer than {self.run_seconds:g} seconds, the limit of the "
            f"{self.kind} {self.name}. Remedy: an operator can raise the limit with "
            "`flower-nats quota set`."
        )
