"""The ServerApp's side of an exchange, by the stock client: ``GrpcGrid`` with a task's token.

Started by the harness as ``python -m benchmarks.serverapp '{"appio": …, "control": …}'``. It gets
its token as ``flower-superexec`` does and its input as ``flwr-serverapp`` does, then runs
exchanges on command: ``start``, ``nodes``, ``exchange``, ``log``. It ends when its standard input does.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

import grpc
from flwr.app import Message
from flwr.common.serde import run_from_proto
from flwr.proto.appio_pb2 import ClaimTaskRequest, PullPendingTasksRequest, PullTaskInputRequest
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.control_pb2_grpc import ControlStub
from flwr.proto.log_pb2 import PushLogsRequest
from flwr.proto.serverappio_pb2_grpc import ServerAppIoStub
from flwr.supercore.grpc import create_channel
from flwr.supercore.heartbeat import HeartbeatSender, make_task_heartbeat_fn_grpc
from flwr.supercore.interceptors import RuntimeVersionClientInterceptor
from flwr.superlink.grid import GrpcGrid

from benchmarks.app import nothing_fab
from benchmarks.logreader import LogReader
from benchmarks.payloads import instruction_content
from benchmarks.worker import commands, reserve_stdout

_TASK_SECONDS = 30.0


def channel(address: str, component: str) -> Any:
    """A channel as the stock component opens it, without TLS."""
    return create_channel(
        address, insecure=True, interceptors=[RuntimeVersionClientInterceptor(component)]
    )


def start_run(control: str) -> int:
    """Submit the app as ``flwr run`` does and return the run's id."""
    with channel(control, "flwr CLI") as connection:
        response = ControlStub(connection).StartRun(StartRunRequest(fab=nothing_fab()))
    if not response.HasField("run_id"):
        raise ValueError(f"the run was refused: {response.note}")
    return int(response.run_id)


def claim_token(appio: str, run_id: int) -> str:
    """Wait for the run's task and claim it, as ``flower-superexec`` does."""
    deadline = time.monotonic() + _TASK_SECONDS
    with channel(appio, "SuperExec") as connection:
        stub = ServerAppIoStub(connection)
        while time.monotonic() < deadline:
            for task in stub.PullPendingTasks(PullPendingTasksRequest()).tasks:
                if task.run_id != run_id:
                    continue
                token = stub.ClaimTask(ClaimTaskRequest(task_id=task.task_id)).token
                if token:
                    return str(token)
            time.sleep(1)
    raise TimeoutError(f"no task for run {run_id} in {_TASK_SECONDS} s")


class ServerApp:
    """A running task and its grid."""

    def __init__(self, appio: str, control: str) -> None:
        run_id = self._run_id = start_run(control)
        self._control = control
        self._grid = GrpcGrid(appio, insecure=True, token=claim_token(appio, run_id))
        HeartbeatSender(make_task_heartbeat_fn_grpc(self._grid._stub)).start()
        response = self._grid._stub.PullTaskInput(PullTaskInputRequest())
        self._grid.set_run(run_from_proto(response.run))

    def nodes(self) -> dict[str, object]:
        return {"nodes": list(self._grid.get_node_ids())}

    def log(self, lines: int, interval: float) -> dict[str, object]:
        """Push ``lines`` log lines, one every ``interval`` seconds; time each until it is seen."""
        with channel(self._control, "flwr CLI") as connection:
            reader = LogReader(ControlStub(connection), self._run_id)
            pushed: dict[int, float] = {}
            for number in range(lines):
                time.sleep(interval)
                pushed[number] = time.monotonic()
                request = PushLogsRequest(run_id=self._run_id, logs=[f"line {number}\n"])
                self._grid._stub.PushLogs(request)
            return {"delays": reader.delays(pushed)}

    def exchange(self, nodes: list[int], size: int, timeout: float) -> dict[str, object]:
        """Send one model of ``size`` bytes to ``nodes`` and time it until all have replied."""
        content = instruction_content(size)
        messages = [Message(content, node, "train", group_id="1") for node in nodes]
        start = time.monotonic()
        replies = list(self._grid.send_and_receive(messages, timeout=timeout))
        seconds = time.monotonic() - start
        lost = check_replies(replies, nodes, size)
        del replies, messages, content
        gc.collect()
        return {"seconds": seconds, "lost": lost}


def check_replies(replies: list[Any], nodes: list[int], size: int) -> list[str]:
    """Return the reasons of error replies, which the server gave in place of a node's reply.

    Raises:
        ValueError: A reply is missing, cut short, not for this exchange or like another one.
    """
    if len(replies) != len(nodes):
        raise ValueError(f"{len(replies)} replies from {len(nodes)} nodes")
    whole = [reply for reply in replies if not reply.has_error()]
    senders = {reply.metadata.src_node_id for reply in whole}
    if len(senders) != len(whole) or not senders <= set(nodes):
        raise ValueError("a node replied twice, or one that was not asked")
    arrays = [next(iter(reply.content["arrays"].values())).data for reply in whole]
    if any(len(array) < size // 4 * 4 for array in arrays):
        raise ValueError("a reply was cut short")
    if len({array[-64:] for array in arrays}) != len(arrays):
        raise ValueError("two nodes sent the same reply")
    return [str(reply.error.reason) for reply in replies if reply.has_error()]


def serve(arguments: Mapping[str, Any]) -> None:
    """Do what standard input says until it ends."""
    answer = reserve_stdout()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    app: ServerApp | None = None
    for command in commands():
        do = command.pop("do")
        try:
            if app is None:
                app = ServerApp(arguments["appio"], arguments["control"])
            answer({} if do == "start" else getattr(app, do)(**command))
        except (ValueError, TimeoutError, grpc.RpcError) as exc:
            answer({"error": f"{type(exc).__name__}: {exc}"})


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
