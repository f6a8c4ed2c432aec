"""The runtime of `make bench`, started in the same way."""

from pathlib import Path

from benchmarks.flower import VERSIONS, flower
from benchmarks.targets import FlowerNats
from harness.flower import HTTP


def test_a_benchmark_says_how_durable_the_measured_runtime_is(tmp_path: Path) -> None:
    with FlowerNats(tmp_path, flower(VERSIONS[HTTP])) as target:
        durability = target.durability()

    assert durability == (
        "JetStream, 1 replica, synced: always; PostgreSQL, fsync True, synchronous_commit on"
    )
