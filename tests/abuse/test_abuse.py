"""A runtime is attacked while stock SuperNodes train: they notice nothing, and nothing stays."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from harness.channels import WireName
from harness.children import PATIENCE, wait_until
from harness.environment import free_port
from harness.flower import Addresses
from tests.abuse.attacks import ON_BOTH_WIRES, OVER_GRPC
from tests.abuse.stranger import Attack, Stranger
from tests.e2e.federation import APPS, OVER_HTTP, Federation
from tests.e2e.federation import OVER_GRPC as FLWR_OVER_GRPC
from tests.e2e.servers import ServerOptions, running_server

_MIB = 1024 * 1024

WIRES: Sequence[WireName] = ("grpc", "http")

MOST_MEMORY = {
    "up": 500 * _MIB,
    "gateway": 700 * _MIB,
    "superlink": 500 * _MIB,
    "nats-server": 700 * _MIB,
}
"""Bytes (RSS) that a process of each kind may hold at any moment; `up` relays logs of replicas."""

CALM_SECONDS = 60.0
"""Seconds after which the gateways hold no more than before."""

_LOG_MIB = 9
"""MiB of the log that strangers follow and do not read: more than one answer holds."""

_WAITING = 4
"""Calls that may wait at the end: those of two SuperNodes and one SuperExec, and one more."""

_BODIES = 4096
"""Bytes that the requests of the waiting calls may have in all."""

_COUNTED = re.compile(r"^flower_nats_(held_calls|calls_in_hand|request_body_bytes) (\d+)$", re.M)


class Memory:
    """The peak memory of each kind of process of a runtime, from frequent samples."""

    def __init__(self, root: psutil.Process) -> None:
        self.most = dict.fromkeys(MOST_MEMORY, 0)
        self._root = root
        self._over = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Sample the memory during the `with` block."""
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._over.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            for process in (self._root, *self._root.children(recursive=True)):
                try:
                    command, held = process.cmdline(), process.memory_info().rss
                except psutil.Error:
                    continue
                for kind in self.most:
                    if any(kind == Path(word).name for word in command[:6]):
                        self.most[kind] = max(self.most[kind], held)


class Training:
    """A run of two stock SuperNodes, one over each wire, until the test ends it."""

    def __init__(self, federation: Federation, folder: Path) -> None:
        self.nodes = federation.start_supernodes(alpha=OVER_HTTP, beta=FLWR_OVER_GRPC)
        self._until = folder / "enough"
        self._federation = federation
        self.stream = federation.start_cli(
            "training",
            *("run", str(APPS / "rounds"), "--stream"),
            *("--run-config", f'nodes=2 until="{self._until}" log-mib={_LOG_MIB}'),
        )
        self.stream.wait_for_output("round 2: 2 answers")

    @property
    def rounds(self) -> int:
        """The number of rounds so far."""
        return self.stream.output().count(": 2 answers, 0 errors")

    def until_next_round(self) -> None:
        """Wait until one more round has ended."""
        wanted = self.rounds + 1
        wait_until(lambda: self.rounds >= wanted, PATIENCE, f"round {wanted}")

    def end(self) -> str:
        """Let the run end; return its log."""
        self._until.touch()
        assert self.stream.wait(PATIENCE) == 0
        return self.stream.output()


ALL: Sequence[tuple[Attack, WireName]] = [
    *((attack, wire) for attack in ON_BOTH_WIRES for wire in WIRES),
    *((attack, "grpc") for attack in OVER_GRPC),
]
BY_TURNS: Sequence[tuple[Attack, WireName]] = [
    *((attack, WIRES[number % 2]) for number, attack in enumerate(ON_BOTH_WIRES)),
    *((attack, "grpc") for attack in OVER_GRPC),
]
"""In short form: each attack over one wire."""

MADE = [
    pytest.param(1, BY_TURNS, 5, id="1"),
    pytest.param(1, ALL, 1, id="1-all", marks=pytest.mark.long),
    pytest.param(3, ALL, 1, id="3-all", marks=pytest.mark.long),
]
"""The number of attacked replicas, the attacks, and after how many attacks one more round of the
training must end."""


def in_hand(port: int) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        return {name: int(value) for name, value in _COUNTED.findall(answer.read().decode())}


@pytest.mark.parametrize(("replicas", "attacks", "looks_after"), MADE)
def test_an_attacked_federation_trains_on_and_nothing_of_the_attacks_stays(
    tmp_path: Path, replicas: int, attacks: Sequence[tuple[Attack, WireName]], looks_after: int
) -> None:
    health = free_port()
    options = ServerOptions(
        replicas=replicas, more=("--http-health-address", f"127.0.0.1:{health}")
    )
    failures: list[str] = []
    gateways = range(health + replicas, health + 2 * replicas)
    with running_server(tmp_path / "server", options) as server:
        federation = Federation(server, tmp_path / "clients")
        try:
            training = Training(federation, tmp_path)
            memory = Memory(psutil.Process(server.process.pid))
            with memory.watched():
                for number, (attack, wire) in enumerate(attacks, 1):
                    began = time.monotonic()
                    failures += asyncio.run(one(attack, server.addresses, wire))
                    print(f"{attack.__name__} over {wire}: {time.monotonic() - began:.1f} s")
                    if number % looks_after == 0:
                        training.until_next_round()
                training.until_next_round()
            print({kind: most // _MIB for kind, most in memory.most.items()})
            log = training.end()
            until_calm(gateways)
        finally:
            federation.close()
    assert failures == []
    assert " 1 errors" not in log
    assert " 2 errors" not in log
    for kind, most in MOST_MEMORY.items():
        assert 0 < memory.most[kind] < most, memory.most


async def one(attack: Attack, addresses: Addresses, wire: WireName) -> list[str]:
    """Make an attack; return its failed assertions."""
    stranger = Stranger(addresses, wire)
    try:
        await attack(stranger)
    except AssertionError as exc:
        return [f"{attack.__name__} over {wire}: {exc}"]
    except ConnectionError:
        # The server may close the connections of an attacker.
        return []
    finally:
        await stranger.close()
    return []


def until_calm(ports: Iterable[int]) -> None:
    """Wait until gateways hold only waiting calls of SuperNodes and SuperExecs."""
    deadline = time.monotonic() + CALM_SECONDS
    while not all(map(is_calm, counted := [in_hand(port) for port in ports])):
        assert time.monotonic() < deadline, counted
        time.sleep(0.2)


def is_calm(counted: Mapping[str, int]) -> bool:
    waiting = counted["held_calls"] == counted["calls_in_hand"] <= _WAITING
    return waiting and counted["request_body_bytes"] <= _BODIES
