"""Times that depend on each other: each relation, with its reason.

A change that breaks a relation must also change the other time, or show that the reason is gone.
All times are in seconds.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from flwr.common import constant as flwr_common
from flwr.supercore import constant as flwr_supercore
from flwr.supercore.protobuf.client import ProtobufClient

from flower_nats.broker import (
    core_connection,
    members,
    pushers,
    rpc,
    runlog,
    stream_trials,
    streams,
)
from flower_nats.embedded import envoy
from flower_nats.embedded.envoy_routes import routes
from flower_nats.model import caller, states
from flower_nats.store import connection as database
from flower_nats.store import idempotency, nodes, pool, replicas
from flower_nats.superlink import wiring, worker
from flower_nats.superlink.housekeeping import housekeeper as housekeeping
from flower_nats.superlink.housekeeping import messages as message_housekeeping
from flower_nats.superlink.runs import fab_checks
from flower_nats.wire.methods import BY_NAME
from flower_nats_cli import down, stack
from flower_nats_gateway.api import runtime
from flower_nats_gateway.calls import bodies
from flower_nats_gateway.calls.wire import GRPC, HTTP
from flower_nats_gateway.cluster import expiring_cache, liveness, usage
from flower_nats_gateway.delivery import objects, push_session
from flower_nats_gateway.process import gateway
from flower_nats_gateway.runlog import pending
from flower_nats_gateway.transports import log_relay
from flower_nats_gateway.transports.grpc import listener as grpc_listener
from flower_nats_gateway.transports.http import app, listener, protocol, sockets

# Times of stock clients, from the installed flwr.
CLIENT_GIVES_UP = float(inspect.signature(ProtobufClient.__init__).parameters["timeout"].default)
"""Limit of a connect with its handshake, and of each read and write of a unary call over HTTP."""
CLIENT_KEEPS_CONNECTION = float(httpx.Limits().keepalive_expiry or 0)
CLIENT_RETRIES_WITHIN = float(flwr_common.MAX_RETRY_DELAY)
HEARTBEAT_GIVES_UP = float(flwr_common.HEARTBEAT_CALL_TIMEOUT)
HEARTBEAT_EVERY = float(flwr_common.HEARTBEAT_DEFAULT_INTERVAL)
HEARTBEAT_PAUSE = (HEARTBEAT_EVERY - HEARTBEAT_GIVES_UP) * (
    flwr_common.HEARTBEAT_BASE_MULTIPLIER + flwr_common.HEARTBEAT_RANDOM_RANGE[1]
)
FORCED_EXIT = float(flwr_supercore.FORCE_EXIT_TIMEOUT_SECONDS)

# Times of stock clients that have no name in their code.
FLUSH_OF_LINES = 3.0
"""Before its output, a ServerApp waits so long for its last lines (`common/logger.py`)."""
LINES_EVERY = 0.2
"""The time between two uploads of lines (the same file)."""
LINES_TO_OUTPUT = 1.0
"""The time between the last lines and the output (the same file)."""
CLI_SHOW_GIVES_UP = 5.0
"""The limit of `flwr log --show` over gRPC (flwr 1.33 `cli/log.py`)."""

# Times of networks and operators.
NAT_FORGETS = 15.0
"""Idle flows live so long in the most forgetful routers; see docs/network.md."""
BALANCER_GIVES_UP = 60.0
"""The default limit of balancers for a quiet call."""
PAUSED_MACHINE = 70.0
"""The duration of a replica's stop in the full fault tests."""
LOST_RUN_ENDS = 90.0
"""The run of a lost ServerApp fails within this time; see docs/guarantees.md."""
UP_ENDS = 10.0
"""`flower-nats up`, and each replica, ends within this time; see docs/guarantees.md."""


def route_of(port: str, api: str, name: str) -> dict[str, Any]:
    """Return Envoy's route for a call on one of its ports with a body that is not too long."""
    method = BY_NAME[(api, name)]
    path = method.http_path if port == "http" else method.path
    for route in routes(port, ["http", "serverappio", "fleet", "control"]):
        match = route["match"]
        if "direct_response" in route:
            continue
        if match.get("path") == path or path.startswith(match.get("prefix", "?")):
            return dict(route["route"])
    raise AssertionError(f"{path} has no route")


def per_try(port: str, api: str, name: str) -> float:
    """Return the time after which Envoy asks another gateway."""
    return number(route_of(port, api, name)["retry_policy"]["per_try_timeout"])


def in_all(port: str, api: str, name: str) -> float:
    """Return the time after which Envoy gives up."""
    return number(route_of(port, api, name)["timeout"])


def number(text: str) -> float:
    return float(text.removesuffix("s"))


def grpc_option(name: str) -> float:
    return dict(grpc_listener._OPTIONS)[name] / 1000


HTTP_LONGEST_HOLDS = max(HTTP.longest_hold, runtime.TASKS_HOLD, runtime.HOLD, objects.HOLD)
ENVOY_KEEPS = number(
    envoy._wire_to(over_http_1=True)["common_http_protocol_options"]["idle_timeout"]
)
ENVOY_PINGS = envoy._wire_to(over_http_1=False)["explicit_http_config"]["http2_protocol_options"]
ENVOY_FINDS_FROZEN = sum(number(one) for one in ENVOY_PINGS["connection_keepalive"].values())

Times = dict[str, float]

RELATIONS: dict[str, Times] = {
    # Held calls, and waits
    "what is held over HTTP is answered before Envoy asks another gateway, and before clients give up": {
        "longest hold": HTTP_LONGEST_HOLDS,
        "Envoy, a try": per_try("http", "Fleet", "PullMessages"),
        "Envoy, in all": in_all("http", "Fleet", "PullMessages"),
        "client": CLIENT_GIVES_UP,
    },
    "a gateway says 503 before an HTTP client gives up": {
        "hold": HTTP.longest_hold,
        "answer within": HTTP.answer_within or 0,
        "Envoy, in all": in_all("http", "Runtime", "GetNodes"),
        "client": CLIENT_GIVES_UP,
    },
    "a fault of the broker is waited out before a client over HTTP hears of it": {
        "broker": core_connection.PATIENCE,
        "answer within": HTTP.answer_within or 0,
    },
    "what is held over gRPC is answered before balancers take it for dead": {
        "hold": GRPC.longest_hold,
        "balancers": BALANCER_GIVES_UP,
    },
    "what is held over gRPC, and then waits for the broker, is not asked of another gateway": {
        "hold and patience": GRPC.longest_hold + core_connection.PATIENCE,
        "Envoy, a try": per_try("fleet", "Fleet", "PullMessages"),
    },
    "what is not held waits for the broker before another gateway is asked": {
        "patience": core_connection.PATIENCE,
        "Envoy, a try": per_try("fleet", "Fleet", "PushMessages"),
    },
    "a stream of an answer begins long before its client gives up": {
        "first message": app._FIRST_MESSAGE,
        "client": CLIENT_GIVES_UP,
    },
    "`flwr log --show` gets what is read": {
        "a read": runlog._READ_SECONDS,
        "client": CLI_SHOW_GIVES_UP,
    },
    "an answer that had its time is given before a heartbeat gives up": {
        "wait for a fresh one": expiring_cache._GRACE,
        "heartbeat": HEARTBEAT_GIVES_UP,
    },
    "a heartbeat finds a second superlink in its time": {
        "second try": rpc._FIRST_TRY,
        "heartbeat": HEARTBEAT_GIVES_UP,
    },
    "replies settle sooner than a ServerApp that got some of them would ask again": {
        "settle": runtime.SETTLE,
        "its sleep": 3.0,
    },
    # Connections
    "the side that closes an idle connection is the one that calls over it": {
        "clients": CLIENT_KEEPS_CONNECTION,
        "Envoy": ENVOY_KEEPS,
        "gateways": protocol._IDLE_SECONDS,
    },
    "a balancer that keeps idle connections for a minute closes them before we do": {
        "balancers": BALANCER_GIVES_UP,
        "gateways": protocol._IDLE_SECONDS,
    },
    "signs of life come before routers forget a quiet connection: in streams over HTTP": {
        "sign of life": app._SIGN_OF_LIFE,
        "routers": NAT_FORGETS,
    },
    "signs of life come before routers forget a quiet connection: TCP's": {
        "probe": sockets._PROBE_SECONDS,
        "routers": NAT_FORGETS,
    },
    "signs of life come before routers forget a quiet connection: gRPC's": {
        "ping": grpc_option("grpc.keepalive_time_ms"),
        "routers": NAT_FORGETS,
    },
    "a client ends its handshake before we do, which would end it for good": {
        "client": CLIENT_GIVES_UP,
        "handshake": listener._HANDSHAKE_SECONDS,
    },
    "a client that is cut off for its slowness has given up itself": {
        "client": CLIENT_GIVES_UP,
        "pause in a body": bodies.PAUSE,
    },
    # The end of a run
    "lines that wait are said to wait before stock pushes its output": {
        "said after": pending._SAY_AFTER,
        "output": LINES_TO_OUTPUT,
    },
    "a gateway that has fallen silent is known before stock pushes its output": {
        "two pulses": 2 * liveness._PULSE,
        "silent after": liveness._SILENT_AFTER,
        "output": LINES_TO_OUTPUT,
    },
    "two hints that lines wait may be lost": {
        "three hints": 3 * pending._SAY_AGAIN,
        "count for": pending._COUNTS_FOR[pending._WAITING],
    },
    "what a client has kept back while lines waited has come": {
        "upload": LINES_EVERY,
        "counts for": pending._COUNTS_FOR[pending._STORED],
    },
    "lines that were refused have been tried again": {
        "retry": CLIENT_RETRIES_WITHIN,
        "counts for": pending._COUNTS_FOR[pending._REFUSED],
        "the end of a run waits": pending._LONGEST,
    },
    "the end of a run that waits for lines is not asked of another gateway over gRPC": {
        "waits": pending._LONGEST,
        "Envoy, a try": per_try("serverappio", "Runtime", "PushTaskOutput"),
    },
    "calls of a gateway that is frozen are in other hands before it counts as gone": {
        "Envoy over gRPC": ENVOY_FINDS_FROZEN,
        "gone after": liveness._GONE_AFTER,
    },
    "lines of a ServerApp over HTTP are in other hands before their gateway counts as gone": {
        "Envoy": per_try("http", "Runtime", "PushLogs"),
        "gone after": liveness._GONE_AFTER,
    },
    "the output of a process that is about to be gone is asked of another gateway in its time": {
        "Envoy, a try": per_try("http", "Runtime", "PushTaskOutput"),
        "left after its lines": FORCED_EXIT - FLUSH_OF_LINES,
    },
    "what is carried through is not given up before the balancer gives it up": {
        "gateways ask": caller.ASKED_FOR,
        "Envoy": in_all("serverappio", "Runtime", "PushTaskOutput"),
    },
    "who ends may be heard for longer than its last words are said again": {
        "Envoy": in_all("serverappio", "Runtime", "PushTaskOutput"),
        "farewell": states.FAREWELL_SECONDS,
    },
    "an answer is remembered for longer than it is asked for": {
        "asked for": caller.ASKED_FOR,
        "remembered": idempotency._KEEP_SECONDS,
    },
    "a body in transit is there for longer than it is asked for": {
        "asked for": caller.ASKED_FOR,
        "there": streams.BLOB_AGE,
    },
    # Signs of life
    "one pulse of a superlink may be late, and three lost": {
        "pulse": members.PULSE,
        "awake": members._AWAKE,
        "three": 3 * members.PULSE,
        "silent after": members._SILENT_AFTER,
        "gone after": members._GONE_AFTER,
    },
    "a request that meets a stopped superlink goes to one that is known to be awake": {
        "silent after": members._SILENT_AFTER,
        "second try": rpc._FIRST_TRY,
        "attempt": core_connection.ATTEMPT,
    },
    "two signs that a call is in hand may be lost before another superlink is asked": {
        "three": 2.9 * rpc._SIGN_EVERY,
        "first try": rpc._FIRST_TRY,
    },
    "an app that could not be checked is told of while its caller still waits": {
        "checked": core_connection.PATIENCE - fab_checks._TO_ANSWER,
        "waits": core_connection.PATIENCE,
    },
    "a gateway that lost its NATS server has found another one before it counts as gone": {
        "found": liveness._CONNECTED_AGAIN,
        "gone after": liveness._GONE_AFTER,
    },
    "one announcement may be lost before a gateway counts as not ready": {
        "two": 2 * gateway._ANNOUNCE_INTERVAL,
        "lately": gateway._LATELY,
    },
    "one announcement may be lost before a superlink counts as not ready": {
        "two": 2 * worker._ANNOUNCE_EVERY,
        "lately": worker._LATELY,
    },
    "one look may fail before the streams count as away": {
        "two looks": stream_trials.LOOK_EVERY
        + 2 * (2 * stream_trials.ATTEMPT + stream_trials._SLACK),
        "lately": stream_trials.STREAMS_LATELY,
    },
    "one announcement may be lost before a replica is not listed": {
        "two": 2 * max(worker._ANNOUNCE_EVERY, gateway._ANNOUNCE_INTERVAL),
        "listed": replicas._SEEN_WITHIN,
    },
    "silence proves nothing once an announcement is late": {
        "announced": gateway._ANNOUNCE_INTERVAL,
        "deaf after": nodes.DEAF_AFTER,
        "two": 2 * gateway._ANNOUNCE_INTERVAL,
    },
    "a gateway that was paused excuses its nodes, and one that is lost does not keep its runs": {
        "paused": PAUSED_MACHINE,
        "absence": nodes.ABSENCE,
        "lost": LOST_RUN_ENDS,
    },
    "the broker remembers a write for longer than a replica is paused in the middle of it": {
        "paused": PAUSED_MACHINE,
        "remembered": streams.DUPLICATE_WINDOW,
    },
    "the broker knows a store that is tried again": {
        "patience": core_connection.PATIENCE,
        "remembered": streams.DUPLICATE_WINDOW,
    },
    "a heartbeat from before a farewell has come": {
        "collected": usage._INTERVAL,
        "late": nodes._LATE_SECONDS,
    },
    "one heartbeat of a node may be lost, and its retry be as late as can be": {
        "pause": HEARTBEAT_PAUSE,
        "two calls and a retry": HEARTBEAT_PAUSE + 2 * HEARTBEAT_GIVES_UP + CLIENT_RETRIES_WITHIN,
        "offline": states.HEARTBEAT_PATIENCE * HEARTBEAT_EVERY,
    },
    "the same of a task": {
        "two calls and a retry": HEARTBEAT_PAUSE + 2 * HEARTBEAT_GIVES_UP + CLIENT_RETRIES_WITHIN,
        "failed": states.TASK_SILENCE_SECONDS,
    },
    "a task whose claim had to wait for the broker is still its SuperExec's": {
        "broker": core_connection.PATIENCE,
        "claim": states.CLAIM_SECONDS,
    },
    "a database that is away is told of before a gateway gives its superlink up": {
        "database": database.PATIENCE + pool.CONNECT,
        "a statement": database.ATTEMPT_SECONDS,
        "gateway": core_connection.PATIENCE,
    },
    "a database that is only slow does not look as if its connections were lost": {
        # The driver waits five seconds until the server takes a cancel, and five for its effect.
        "statement": database.ATTEMPT_SECONDS + 10,
        "lost after": 2 * pool._LOOK_EVERY + pool._LOST_AFTER,
    },
    "a superlink without connections is unready before it ends": {
        "lately": worker._LATELY,
        "lost after": 2 * pool._LOOK_EVERY + pool._LOST_AFTER,
    },
    "connections are asked for between two looks at whether any can be had": {
        "announcements": worker._ANNOUNCE_EVERY,
        "looks": 2 * pool._LOOK_EVERY,
    },
    # Housekeeping
    "an open session is left to its gateway for more than one pass": {
        "pass": wiring._SWEEP_EVERY,
        "young": message_housekeeping._YOUNG.total_seconds(),
        "objects kept": message_housekeeping._KEPT.total_seconds(),
        "straggler": message_housekeeping._STRAGGLER.total_seconds(),
        "session": message_housekeeping.SESSION_SECONDS,
    },
    "a view of a push session is asked anew before the session is dropped": {
        "view": push_session._FRESH,
        "session": message_housekeeping.SESSION_SECONDS,
    },
    "a session lasts while pushes to it are told of, should some hints be lost": {
        "told": 5 * pushers.TELL_EVERY,
        "session": message_housekeeping.SESSION_SECONDS,
    },
    "a body that has stopped is ended before its session is given up": {
        "pause": bodies.PAUSE,
        "session": message_housekeeping.SESSION_SECONDS,
    },
    "a session outlives the pause of a client that was refused": {
        "retry": CLIENT_RETRIES_WITHIN,
        "session": message_housekeeping.SESSION_SECONDS,
    },
    "a claim on a piece of housekeeping is renewed before it ends": {
        "renewed": housekeeping._CLAIM_EVERY,
        "claim": housekeeping.LEASE_SECONDS,
    },
    "passes that come as they should are no outage": {
        "two passes": 2 * wiring._SWEEP_EVERY,
        "outage": message_housekeeping._OUTAGE,
    },
    # The end of processes
    "a gateway ends in time": {
        "all that it does": gateway.GRACE + gateway._SETTLE_SECONDS + 2 * gateway._LEAVE_SECONDS,
        "promised": UP_ENDS,
    },
    "a superlink ends in time": {
        "all that it does": worker._DRAIN_SECONDS + worker._LEAVE_SECONDS,
        "promised": UP_ENDS,
    },
    "up ends in time, and down waits for it": {
        "graces": stack._SUPEREXEC_GRACE
        + stack._BALANCER_GRACE
        + stack._GATEWAY_GRACE
        + stack._SUPERLINK_GRACE
        + stack._SERVER_GRACE,
        "promised": UP_ENDS,
        "down": down._LIMIT_SECONDS,
    },
    "the log relay calls again faster than `flwr log` would": {
        "relay": log_relay._PAUSE,
        "flwr log": 0.5,
    },
}


def reasons() -> Iterator[Any]:
    for reason, times in RELATIONS.items():
        yield pytest.param(times, id=reason)


@pytest.mark.parametrize("times", reasons())
def test_each_of_these_times_is_shorter_than_the_next(times: Times) -> None:
    values = list(times.values())

    assert values == sorted(values), times
    assert len(set(values)) == len(values), times
