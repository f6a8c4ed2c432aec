"""A real run: two stock SuperNodes, a stock SuperExec, three rounds of an app that does nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.processes import Child, ChildFailed
from benchmarks.targets import Target

_NODES = 2
_START_SECONDS = 60.0
_RUN_SECONDS = 180.0


@contextmanager
def clients(target: Target) -> Iterator[list[Child]]:
    """Run two connected stock SuperNodes and a stock SuperExec for ServerApps."""
    flower, addresses, control = target.flower, target.addresses, target.control()
    commands = {"superexec": flower.superexec(flower.runtime_address(addresses))}
    for number in range(_NODES):
        superlink = flower.fleet_address(addresses)
        commands[f"supernode-{number}"] = flower.supernode(superlink, f"number={number}")

    def start(command: list[str], home: Path) -> Child:
        home.mkdir()
        return Child.start(command, home / "client.log", env=flower.environment.variables(home))

    with ExitStack() as stack:
        children = []
        for name, command in commands.items():
            children.append(start(command, target.directory / name))
            stack.callback(children[-1].stop)
        _wait(lambda: control.online_nodes() == _NODES, children, "SuperNodes", _START_SECONDS)
        _wait(lambda: _connected(children[0]), children, "SuperExec", _START_SECONDS)
        yield children


def _connected(child: Child) -> bool:
    return any(
        connection.status == "ESTABLISHED"
        for process in child.tree()
        for connection in process.net_connections("tcp")
    )


def run(target: Target, children: list[Child]) -> float:
    """Submit the app and return the seconds until its run has finished.

    Raises:
        ChildFailed: The run did not complete.
    """
    control = target.control()
    start = time.monotonic()
    run_id = control.start_run()
    _wait(lambda: control.run_status(run_id).status == "finished", children, "end", _RUN_SECONDS)
    seconds = time.monotonic() - start
    status = control.run_status(run_id)
    if status.sub_status != "completed":
        logs = "\n".join(child.tail() for child in children)
        raise ChildFailed(f"the run ended as {status.sub_status}: {status.details}\n{logs}")
    return seconds


def _wait(condition: Callable[[], bool], children: list[Child], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        for child in children:
            child.check()
        if time.monotonic() > deadline:
            raise ChildFailed(f"no {what} in {seconds} s:\n{children[0].tail()}")
        time.sleep(0.2)
