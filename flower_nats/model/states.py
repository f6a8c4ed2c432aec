"""States of tasks, runs and nodes, and the transitions between them.

A run has no state of its own: it is in the state of its primary task. The names are what stock
clients print and compare (flwr 1.33 `common/constant.py` `Status`, `SubStatus`;
`supercore/constant.py` `NodeStatus`).

| task | may become |
|---|---|
| pending | starting (claimed), finished:stopped, finished:failed |
| starting | running (input pulled), pending (claim expired), finished:stopped, finished:failed |
| running | finished:completed, finished:failed, finished:stopped |
| finished | nothing |

| node | may become |
|---|---|
| registered | online (activated or heard), unregistered |
| online | offline (deactivated or not heard), unregistered |
| offline | online (activated or heard), unregistered |
| unregistered | nothing; its account may register its key again, as another node |
"""

from enum import StrEnum


class Status(StrEnum):
    """State of a task, and so of the run whose primary task it is."""

    PENDING = "pending"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"


class SubStatus(StrEnum):
    """How a task or run finished."""

    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"


class NodeStatus(StrEnum):
    """State of a SuperNode."""

    REGISTERED = "registered"
    ONLINE = "online"
    OFFLINE = "offline"
    UNREGISTERED = "unregistered"


CLOSED_SECONDS = 15.0
"""Seconds for which new runs are refused, unless `flower-nats down --wait` asks again. So the runtime
takes runs again after a killed `down`."""

HEARTBEAT_PATIENCE = 2
"""Heartbeat intervals for which a node or task may stay silent (flwr 1.33 `common/constant.py`)."""

MIN_HEARTBEAT_INTERVAL = 10.0
"""Seconds; the shortest heartbeat interval that a node may ask for."""

MAX_HEARTBEAT_INTERVAL = 1800.0
"""Seconds; the longest heartbeat interval that a node may ask for."""

CLAIM_SECONDS = 30
"""Seconds that a claimed task has to pull its input before it is pending again."""

TASK_SILENCE_SECONDS = 60
"""Seconds without a heartbeat after which a running task has failed."""

FAREWELL_SECONDS = 900
"""Seconds for which a finished task, or an unregistered node, may still call. Its process is
ending, and may have to repeat its last call. This is longer than balancers and gateways repeat
calls."""
