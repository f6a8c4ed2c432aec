"""Lines of the version matrix, beside the Flower that is installed: `make matrix` plays all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.matrix.line import Cast, play
from tests.matrix.servers import Server, flower_nats

# The last of those that are all gRPC and know no push sessions, all but the SuperExec over gRPC, all but
# SuperNodes over HTTP.
CASTS = [
    Cast.of("1.30.0"),
    Cast.of("1.35.0"),
    Cast.of("1.39.0"),
    Cast(supernodes=("1.30.0", "1.39.0", "1.42.0"), superexec="1.39.0", cli="1.35.0"),
]


@pytest.fixture(scope="module")
def runtime(workspace: Path) -> Iterator[Server]:
    """A runtime for all lines."""
    with flower_nats(workspace / "runtime") as server:
        yield server


@pytest.mark.parametrize("cast", CASTS, ids=lambda cast: cast.title)
def test_stock_clients_of_other_versions_complete_a_run(
    cast: Cast, runtime: Server, workspace: Path
) -> None:
    play(cast, runtime.addresses, workspace / cast.title)
