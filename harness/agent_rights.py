"""What SuperNodes, SuperExecs and tasks may do with their own data, and with the data of others.

`tests/integration/test_agent_rights.py` makes each of these calls. `python -m harness.rights_page`
writes the table into docs/security.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from flower_nats.model.errors import CATALOGUE, ErrorCode

YES, NOTHING, EMPTY = "yes", "no effect", "not there"
"""The call is done; it changes nothing; the answer says that there is no such thing."""


class Whose(Enum):
    """Whose data a call is about, with the heading of the column."""

    OWN = "its own"
    UNPROVEN = "in another's name"
    """The caller cannot prove that it is the node or the task that it names."""
    OTHER = "another node's or task's"
    OTHER_RUN = "another run's"
    OTHER_FEDERATION = "another federation's"


Outcome = str | ErrorCode | None
"""One of the words above, or the refusal's code; None if a request cannot name such a thing."""

Line = Mapping[Whose, Outcome]


def _line(
    own: Outcome, unproven: Outcome, other: Outcome, run: Outcome, federation: Outcome
) -> Line:
    return dict(zip(Whose, (own, unproven, other, run, federation), strict=True))


_E = ErrorCode


def _node(
    own: Outcome, other: Outcome = None, run: Outcome = None, federation: Outcome = None
) -> Line:
    return _line(own, _E.INVALID_NODE_ID, other, run, federation)


def _key(own: Outcome) -> Line:
    return _line(own, _E.INVALID_SIGNATURE, None, None, None)


def _task(
    own: Outcome = YES, other: Outcome = None, run: Outcome = None, federation: Outcome = None
) -> Line:
    return _line(own, _E.AUTHENTICATION_FAILED, other, run, federation)


_ANY_RUN = _task(YES, YES, YES, YES)
"""SuperExecs start the tasks of all runs."""

AGENT_RIGHTS: Mapping[tuple[str, str], Line] = {
    ("Fleet", "RegisterNode"): _key(YES),
    ("Fleet", "ActivateNode"): _key(YES),
    ("Fleet", "DeactivateNode"): _node(YES),
    ("Fleet", "UnregisterNode"): _node(YES),
    ("Fleet", "SendNodeHeartbeat"): _node(YES),
    ("Fleet", "PullMessages"): _node(YES),
    ("Fleet", "PushMessages"): _node(YES, NOTHING, NOTHING, NOTHING),
    ("Fleet", "GetRun"): _node(YES, None, YES, _E.GET_RUN_FAILED),
    ("Fleet", "GetFab"): _node(YES, None, YES, _E.GET_FAB_FAILED),
    ("Fleet", "PushObject"): _node(YES, NOTHING, NOTHING, NOTHING),
    ("Fleet", "PullObject"): _node(YES, EMPTY, EMPTY, EMPTY),
    ("Fleet", "ConfirmMessageReceived"): _node(YES, NOTHING, NOTHING, NOTHING),
    ("Runtime", "PullPendingTasks"): _ANY_RUN,
    ("Runtime", "ClaimTask"): _ANY_RUN,
    ("Runtime", "AcquireTask"): _ANY_RUN,
    ("Runtime", "GetRun"): _ANY_RUN,
    ("Runtime", "SendTaskHeartbeat"): _task(),
    ("Runtime", "PullTaskInput"): _task(),
    ("Runtime", "PushTaskOutput"): _task(),
    ("Runtime", "PushObject"): _task(YES, None, NOTHING, NOTHING),
    ("Runtime", "PullObject"): _task(YES, None, EMPTY, EMPTY),
    ("Runtime", "ConfirmMessageReceived"): _task(YES, None, NOTHING, NOTHING),
    ("Runtime", "CreateTask"): _task(),
    ("Runtime", "StartAutomation"): _task(_E.INVALID_AUTOMATION_REQUEST),
    ("Runtime", "PushTaskMessage"): _task(
        YES, _E.INVALID_TASK_MESSAGE, _E.INVALID_TASK_MESSAGE, _E.INVALID_TASK_MESSAGE
    ),
    ("Runtime", "PushTaskEvents"): _task(YES, NOTHING, NOTHING, NOTHING),
    ("Runtime", "PullTaskMessage"): _task(YES, EMPTY, EMPTY, EMPTY),
    ("Runtime", "GetRunSeriesEvents"): _task(),
    ("Runtime", "GetCompactedContexts"): _task(),
    ("Runtime", "PutCompactedContext"): _task(
        YES,
        None,
        _E.INVALID_COMPACTED_CONTEXT_REQUEST,
        _E.INVALID_COMPACTED_CONTEXT_REQUEST,
    ),
    ("Runtime", "RecordTaskUsage"): _task(),
    ("Runtime", "GetConnector"): _task(_E.CONNECTOR_CREDENTIALS_NOT_AVAILABLE),
    ("Runtime", "PushLogs"): _task(YES, None, NOTHING, NOTHING),
    ("Runtime", "PushMessages"): _task(YES, None, _E.MALFORMED_REQUEST, NOTHING),
    ("Runtime", "PullMessages"): _task(YES, None, EMPTY, EMPTY),
    ("Runtime", "GetNodes"): _task(),
}


def table() -> str:
    """Return a Markdown table with a row for each call."""
    lines = [
        f"| call | {' | '.join(one.value for one in Whose)} |",
        f"|---|{'---|' * len(Whose)}",
    ]
    for (api, name), line in AGENT_RIGHTS.items():
        lines.append(f"| {api} {name} | {' | '.join(_cell(line[one]) for one in Whose)} |")
    return "\n".join(lines)


def _cell(outcome: Outcome) -> str:
    if isinstance(outcome, ErrorCode):
        return f"{outcome.value}: {CATALOGUE[outcome].http_status}"
    return outcome or ""
