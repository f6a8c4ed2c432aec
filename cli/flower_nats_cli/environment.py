"""Environment variables: ours, and what other processes get to see of them."""

from __future__ import annotations

import os

PREFIX = "FLOWER_NATS"
"""Each option has a variable, `FLOWER_NATS_<COMMAND>_<OPTION>`."""


def without_ours() -> dict[str, str]:
    """Return the environment without our settings, for processes that we start.

    What is meant for one process would confuse another, and what we know of NATS and PostgreSQL,
    passwords in it, is nothing for the apps that a SuperExec runs.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith(f"{PREFIX}_")}
