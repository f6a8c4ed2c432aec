"""One line of the matrix: the stock clients of users and operators in a whole run."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from harness.children import PATIENCE, Child, ended, wait_until
from harness.environment import clean_environment
from harness.flower import CONNECTION, Addresses, Flower
from harness.flower_environments import environment

APP = Path(__file__).parent / "app"
ROUNDS = 2
_NODE_ID = re.compile(r"SuperNode ID: (\d+)\n")
_RUN_ID = re.compile(r"Successfully started run (\d+)")
_WAITING = re.compile(r"waiting for \d+ nodes")
_ANSWER = re.compile(r"round (\d+): node (\d+) of flwr (\S+)")
_NO_NODE = 1234
"""The id of no node: a run that waits for it goes on until it is stopped."""


@dataclass(frozen=True)
class Cast:
    """The flwr version of each client."""

    supernodes: Sequence[str]
    superexec: str
    cli: str

    @classmethod
    def of(cls, version: str) -> Cast:
        """All clients of one version, with two SuperNodes."""
        return cls((version, version), version, version)

    @property
    def versions(self) -> set[str]:
        return {*self.supernodes, self.superexec, self.cli}

    @property
    def title(self) -> str:
        if len(self.versions) == 1:
            return self.cli
        return (
            f"SuperNodes {', '.join(self.supernodes)}; SuperExec {self.superexec}; CLI {self.cli}"
        )


@dataclass(frozen=True)
class Node:
    """A SuperNode that the server has let in."""

    number: int
    version: str
    node_id: int
    process: Child


def play(cast: Cast, addresses: Addresses, folder: Path) -> float:
    """Run a line; return the seconds of its run, from `flwr run` to its end.

    Raises AssertionError, TimeoutExpired of a command, or InstallError if the line fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        clients = _Clients(addresses, folder, stack)
        superexec = clients.start_superexec(cast.superexec)
        nodes = clients.start_supernodes(cast.supernodes)
        cli = _Cli(Flower(environment(cast.cli)), addresses, folder)
        _check_lists(cli, nodes)
        watched = clients.start("watched-run", cli.command(*_run([_NO_NODE])), cli.variables)
        began = time.monotonic()
        run_id, log = cli.run_to_end(nodes)
        seconds = time.monotonic() - began
        _check_log(log, nodes, cast.superexec)
        _check_log(cli.said("log", str(run_id), CONNECTION, "--show"), nodes, cast.superexec)
        stopped = _stop(watched, cli, superexec)
        statuses = cli.statuses()
        assert statuses[run_id] == "finished:completed", statuses
        assert statuses[stopped] == "finished:stopped", statuses
        _end(nodes)
    return seconds


def _check_lists(cli: _Cli, nodes: Sequence[Node]) -> None:
    listed = cli.json("supernode", "list")["nodes"]
    online = {int(node["node-id"]) for node in listed if node["status"] == "online"}
    assert online >= {node.node_id for node in nodes}, listed
    federations = cli.json("federation", "list")["federations"]
    assert len(federations) == 1, federations


def _check_log(log: str, nodes: Sequence[Node], serverapp: str) -> None:
    """Check that each node has answered once in each round, and check the result."""
    answers = Counter(_ANSWER.findall(log))
    expected = Counter(
        (str(number), str(node.number), node.version)
        for number in range(1, ROUNDS + 1)
        for node in nodes
    )
    assert answers == expected, log
    result = ROUNDS * sum(node.number for node in nodes) / len(nodes)
    assert f"result {result} by the ServerApp of flwr {serverapp}\n" in log, log


def _stop(watched: Child, cli: _Cli, superexec: Child) -> int:
    """Stop the run that `watched` follows; return its id."""
    run_id = int(watched.wait_for_match(_RUN_ID)[1])
    watched.wait_for_match(_WAITING)
    serverapps = psutil.Process(superexec.pid).children(recursive=True)
    assert serverapps, "the SuperExec has started nothing"
    cli.said("stop", str(run_id), CONNECTION)
    code = watched.wait(PATIENCE)
    assert code == 0, f"flwr run --stream of a run that is stopped ended with {code}"
    wait_until(lambda: ended(serverapps), PATIENCE, "the end of a stopped run's ServerApp")
    return run_id


def _end(nodes: Sequence[Node]) -> None:
    """End SuperNodes with one SIGTERM each: a second signal would prevent their farewell."""
    for node in nodes:
        node.process.ask_to_end()
    for node in nodes:
        code = node.process.wait(PATIENCE)
        assert code == 0, f"{node.process.name} ended with {code}"


class _Clients:
    """Clients that end with the line."""

    def __init__(self, addresses: Addresses, folder: Path, stack: ExitStack) -> None:
        self._addresses = addresses
        self._folder = folder
        self._stack = stack

    def start_supernodes(self, versions: Sequence[str]) -> list[Node]:
        """Start SuperNodes, and wait until all are let in."""
        # Powers of two: no node's answer can stand for another's.
        numbered = [(2**index, version) for index, version in enumerate(versions)]
        processes = [self._start_supernode(number, version) for number, version in numbered]
        return [
            Node(number, version, int(process.wait_for_match(_NODE_ID)[1]), process)
            for (number, version), process in zip(numbered, processes, strict=True)
        ]

    def start_superexec(self, version: str) -> Child:
        flower = Flower(environment(version))
        command = flower.superexec(flower.runtime_address(self._addresses))
        return self._start_with_home(f"superexec-{version}", flower, command)

    def start(self, name: str, command: Sequence[str], variables: Mapping[str, str]) -> Child:
        process = Child(command, log_file=self._folder / f"{name}.log", environment=variables)
        self._stack.callback(process.terminate)
        return process

    def _start_supernode(self, number: int, version: str) -> Child:
        flower = Flower(environment(version))
        superlink = flower.fleet_address(self._addresses)
        command = flower.supernode(superlink, f"number={number}")
        return self._start_with_home(f"supernode-{number}-{version}", flower, command)

    def _start_with_home(self, name: str, flower: Flower, command: Sequence[str]) -> Child:
        return self.start(name, command, flower.environment.variables(self._folder / name))


class _Cli:
    """`flwr` of one version; a log beside those of the other clients has its output."""

    def __init__(self, flower: Flower, addresses: Addresses, folder: Path) -> None:
        self._program = flower.environment.program("flwr")
        self._folder = folder
        home = folder / "cli-home"
        flower.write_config(home, addresses)
        self.variables = flower.environment.variables(home)

    def command(self, *arguments: str) -> list[str]:
        """Return a command line of `flwr`."""
        return [self._program, *arguments]

    def said(self, *arguments: str) -> str:
        """Run `flwr`, which must succeed; return its output."""
        done = subprocess.run(
            self.command(*arguments),
            env=clean_environment(self.variables),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        with (self._folder / "cli.log").open("a") as log:
            log.write(f"$ flwr {' '.join(arguments)}\n{done.stdout}{done.stderr}\n")
        assert done.returncode == 0, (
            f"flwr {arguments[0]} ended with {done.returncode}: {done.stderr}"
        )
        return done.stdout

    def json(self, *command: str) -> dict[str, Any]:
        """Run `flwr … --format json`; return the parsed output."""
        printed: dict[str, Any] = json.loads(self.said(*command, CONNECTION, "--format", "json"))
        return printed

    def run_to_end(self, nodes: Sequence[Node]) -> tuple[int, str]:
        """Run `flwr run --stream` with these nodes; return the run's id and the output."""
        printed = self.said(*_run([node.node_id for node in nodes]))
        found = _RUN_ID.search(printed)
        assert found, printed
        return int(found[1]), printed

    def statuses(self) -> dict[int, str]:
        """Return the status of each run that `flwr list` shows."""
        return {int(run["run-id"]): run["status"] for run in self.json("list")["runs"]}


def _run(node_ids: Sequence[int]) -> list[str]:
    """Return the arguments of `flwr` for a run with these nodes."""
    config = f'rounds={ROUNDS} nodes="{" ".join(map(str, node_ids))}"'
    return ["run", str(APP), CONNECTION, "--stream", "--run-config", config]
