"""A real run: two stock SuperNodes, a stock SuperExec, three rounds of an app that does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest
from flwr.proto.control_pb2_grpc import ControlStub

from benchmarks.processes import Child, ChildFailed, executable, free_address
from benchmarks.serverapp import channel, start_run
from benchmarks.targets import Addresses

_NODES = 2
_START_SECONDS = 60.0
_RUN_SECONDS = 180.0


@contextmanager
def clients(addresses: Addresses, directory: Path) -> Iterator[list[Child]]:
    """Two stock SuperNodes and a stock SuperExec for ServerApps, connected."""
    with ExitStack() as stack:
        children = [_superexec(addresses, directory)]
        children += [_supernode(addresses, directory, index) for index in range(_NODES)]
        for child in children:
            stack.callback(child.stop)
        with channel(addresses.control, "flwr CLI") as connection:
            stub = ControlStub(connection)
            _wait(lambda: _online(stub) == _NODES, children, "SuperNodes online", _START_SECONDS)
        _wait(lambda: _connected(children[0]), children, "SuperExec connected", _START_SECONDS)
        yield children


def _superexec(addresses: Addresses, directory: Path) -> Child:
    options = ["--insecure", "--plugin-type", "serverapp", "--appio-api-address", addresses.appio]
    return _client("flower-superexec", options, directory / "superexec")


def _supernode(addresses: Addresses, directory: Path, index: int) -> Child:
    options = ["--insecure", "--superlink", addresses.fleet]
    options += ["--clientappio-api-address", free_address()]
    return _client("flower-supernode", options, directory / f"supernode-{index}")


def _client(program: str, options: list[str], home: Path) -> Child:
    home.mkdir()
    log = home / "client.log"
    return Child.start([executable(program), *options], log, env={"FLWR_HOME": str(home)})


def _online(stub: Any) -> int:
    nodes = stub.ListNodes(ListNodesRequest()).nodes_info
    return sum(node.status == "online" for node in nodes)


def _connected(child: Child) -> bool:
    return any(
        connection.status == "ESTABLISHED"
        for process in child.tree()
        for connection in process.net_connections("tcp")
    )


def run(addresses: Addresses, children: list[Child]) -> float:
    """Submit the app and return the seconds until its run has finished.

    Raises:
        ChildFailed: The run did not complete.
    """
    start = time.monotonic()
    run_id = start_run(addresses.control)
    with channel(addresses.control, "flwr CLI") as connection:
        stub = ControlStub(connection)
        _wait(lambda: _status(stub, run_id).status == "finished", children, "end", _RUN_SECONDS)
        seconds = time.monotonic() - start
        status = _status(stub, run_id)
    if status.sub_status != "completed":
        logs = "\n".join(child.tail() for child in children)
        raise ChildFailed(f"the run ended as {status.sub_status}: {status.details}\n{logs}")
    return seconds


def _status(stub: Any, run_id: int) -> Any:
    return stub.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status


def _wait(condition: Callable[[], bool], children: list[Child], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise ChildFailed(f"no {what} in {seconds} s:\n{children[0].tail()}")
        time.sleep(0.2)
