"""Times that rest on each other, in seconds. Each relation is here with its reason.

A time that is changed alone breaks what was built on it, and nothing shows that but a fault at night.
"""

from __future__ import annotations

import pytest

from flower_nats.broker import core_connection, members, rpc, streams
from flower_nats.model import states
from flower_nats.store import nodes, replicas
from flower_nats.superlink import housekeeping, message_housekeeping, worker
from flower_nats_gateway.api import runtime
from flower_nats_gateway.calls.wire import GRPC, HTTP
from flower_nats_gateway.cluster import liveness
from flower_nats_gateway.delivery import objects, push_session
from flower_nats_gateway.process import gateway
from flower_nats_gateway.runlog import pending
from flower_nats_gateway.transports.http import app, protocol

# Stock clients (flwr 1.42 `supercore/protobuf/client.py`, httpx; flwr 1.33 and 1.42 for the others).
HTTP_READ_TIMEOUT = 30.0
HTTPX_IDLE = 5.0
HEARTBEAT_TIMEOUT = 5.0
SERVERAPP_SLEEP = 3.0
BETWEEN_LAST_LINES_AND_OUTPUT = 1.0

# What is between clients and gateways.
BALANCER_IDLE = 60.0
FORGETFUL_NAT = 15.0
LONGEST_STOP = 70.0
"""For so long a replica may be stopped without losing a node (docs/guarantees.md)."""
NODE_IS_HEARD_WITHIN = 90.0


@pytest.mark.parametrize(
    ("shorter", "longer", "reason"),
    [
        (HTTP.longest_hold, HTTP.answer_within, "a held call is answered before its time is over"),
        (HTTP.answer_within, HTTP_READ_TIMEOUT, "a client that gives up takes us for broken"),
        (runtime.HOLD, HTTP.longest_hold, "a ServerApp's pull is held over HTTP, too"),
        (runtime.TASKS_HOLD, HTTP.longest_hold, "a SuperExec's call is held over HTTP, too"),
        (objects.HOLD, HTTP.longest_hold, "a pull of an object is held over HTTP, too"),
        (GRPC.longest_hold, BALANCER_IDLE, "balancers cut off calls that are quiet for longer"),
        (runtime.SETTLE, SERVERAPP_SLEEP, "an early answer costs a ServerApp its sleep"),
        (rpc._FIRST_TRY, HEARTBEAT_TIMEOUT, "a heartbeat finds a second superlink in its time"),
        (app._SIGN_OF_LIFE, FORGETFUL_NAT, "a NAT router forgets a quiet stream"),
        (HTTPX_IDLE, protocol._IDLE_SECONDS, "the client must be first to close a connection"),
        (BALANCER_IDLE, protocol._IDLE_SECONDS, "the balancer must be first to close one"),
        (
            2 * liveness._PULSE,
            liveness._SILENT_AFTER,
            "one lost sign of life makes no gateway silent",
        ),
        (
            liveness._SILENT_AFTER,
            BETWEEN_LAST_LINES_AND_OUTPUT,
            "a run must not end before its last lines are known to be missing",
        ),
        (pending._SAY_AFTER, BETWEEN_LAST_LINES_AND_OUTPUT, "the same, for lines that wait"),
        (
            pending._SAY_AGAIN,
            pending._COUNTS_FOR[pending._WAITING],
            "lines that wait are said to, without a gap",
        ),
        (liveness._CONNECTED_AGAIN, liveness._GONE_AFTER, "a gateway may find another NATS server"),
        (members.PULSE, members._AWAKE, "a superlink that is awake is heard in that time"),
        (members._AWAKE, members._SILENT_AFTER, "one late sign of life makes none silent"),
        (members._SILENT_AFTER, members._GONE_AFTER, "the silent are passed over, not forgotten"),
        (
            2 * gateway._ANNOUNCE_INTERVAL,
            gateway._LATELY,
            "one lost announcement makes no gateway unready",
        ),
        (2 * worker._ANNOUNCE_EVERY, worker._LATELY, "the same, for superlinks"),
        (2 * gateway._ANNOUNCE_INTERVAL, replicas._SEEN_WITHIN, "status shows who is there"),
        (gateway._ANNOUNCE_INTERVAL, nodes.DEAF_AFTER, "a superlink is not deaf between two"),
        (2 * streams._LOOK_EVERY, streams.STREAMS_LATELY, "one late look makes nobody unready"),
        (LONGEST_STOP, nodes.ABSENCE, "a replica that is stopped for so long loses no node"),
        (nodes.ABSENCE, NODE_IS_HEARD_WITHIN, "a node that is gone shows in the time promised"),
        (
            housekeeping._CLAIM_EVERY,
            housekeeping.LEASE_SECONDS,
            "who does a piece of housekeeping keeps it",
        ),
        (
            push_session._FRESH,
            message_housekeeping.SESSION_SECONDS,
            "a push session that is believed to be there is there",
        ),
        (
            core_connection.PATIENCE,
            streams.DUPLICATE_WINDOW,
            "a store that is tried again is known as the same",
        ),
        (states.CLAIM_SECONDS, states.TASK_SILENCE_SECONDS, "a claim is shorter than a silence"),
        (
            states.MIN_HEARTBEAT_INTERVAL,
            states.MAX_HEARTBEAT_INTERVAL,
            "nodes choose from a range",
        ),
        (gateway.GRACE, 10.0, "orchestrators kill ten seconds after they have asked"),
        (worker._DRAIN_SECONDS + worker._LEAVE_SECONDS, 10.0, "the same, for superlinks"),
    ],
)
def test_a_time_is_at_most_another(shorter: float, longer: float, reason: str) -> None:
    assert shorter <= longer, reason
