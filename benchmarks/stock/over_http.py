"""How a SuperExec gets a task's token and a ServerApp its grid, over HTTP (flwr 1.40 and newer)."""

from __future__ import annotations

import time
from typing import Any

from flwr.common.serde import run_from_proto
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_http
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid import HttpGrid

_TASK_TYPES = ["flwr-serverapp"]


def claim_token(address: str, certificate: bytes | None, run_id: int, patience: float) -> str:
    """Wait for the run's task and acquire it, as ``flower-superexec`` does."""
    deadline = time.monotonic() + patience
    with RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=certificate is None,
        root_certificates=certificate,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec")],
        retry_invoker=make_simple_http_retry_invoker(),
    ) as client:
        while time.monotonic() < deadline:
            answer = client.AcquireTask(AcquireTaskRequest(supported_task_types=_TASK_TYPES))
            if answer.token:
                return str(answer.token)
            time.sleep(1)
    raise TimeoutError(f"no task for run {run_id} in {patience} s")


def open_grid(address: str, certificate: bytes | None, token: str) -> tuple[Any, Any]:
    """Take the task's input and begin its heartbeat; return the grid and its client."""
    grid = HttpGrid(
        address, insecure=certificate is None, root_certificates=certificate, token=token
    )
    calls = grid._runtime_client
    HeartbeatSender(make_task_heartbeat_fn_http(calls)).start()
    given = calls.PullTaskInput(PullTaskInputRequest())
    TaskIdentity.task_id = given.task_id
    TaskIdentity.run_id = given.run.run_id
    TaskIdentity.node_id = given.context.node_id
    grid.set_run(run_from_proto(given.run))
    return grid, calls
