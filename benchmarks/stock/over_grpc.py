"""How a SuperExec gets a task's token and a ServerApp its grid, over gRPC (flwr up to 1.33)."""

from __future__ import annotations

import time
from typing import Any

from flwr.common.serde import run_from_proto
from flwr.proto.appio_pb2 import ClaimTaskRequest, PullPendingTasksRequest, PullTaskInputRequest
from flwr.proto.serverappio_pb2_grpc import ServerAppIoStub
from flwr.supercore.grpc import create_channel
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_grpc
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.superlink.grid import GrpcGrid


def claim_token(address: str, certificate: bytes | None, run_id: int, patience: float) -> str:
    """Wait for the run's task and claim it, as ``flower-superexec`` does."""
    deadline = time.monotonic() + patience
    with create_channel(
        address,
        insecure=certificate is None,
        root_certificates=certificate,
        interceptors=[RuntimeVersionClientInterceptor("SuperExec")],
    ) as channel:
        stub = ServerAppIoStub(channel)
        while time.monotonic() < deadline:
            for task in stub.PullPendingTasks(PullPendingTasksRequest()).tasks:
                if task.run_id != run_id:
                    continue
                token = stub.ClaimTask(ClaimTaskRequest(task_id=task.task_id)).token
                if token:
                    return str(token)
            time.sleep(1)
    raise TimeoutError(f"no task for run {run_id} in {patience} s")


def open_grid(address: str, certificate: bytes | None, token: str) -> tuple[Any, Any]:
    """Take the task's input and begin its heartbeat; return the grid and its stub."""
    grid = GrpcGrid(
        address, insecure=certificate is None, root_certificates=certificate, token=token
    )
    calls = grid._stub
    HeartbeatSender(make_task_heartbeat_fn_grpc(calls)).start()
    grid.set_run(run_from_proto(calls.PullTaskInput(PullTaskInputRequest()).run))
    return grid, calls
