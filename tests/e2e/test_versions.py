"""Lines of the version matrix, beside the Flower that is installed: `make matrix` plays all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.matrix.line import Cast, play
from tests.matrix.servers import Server, flower_nats

# All clients of 1.30 call over gRPC and know no push sessions. Of 1.35, only the SuperExec calls
# over HTTP. Of 1.39, only the SuperNode calls over gRPC.
CASTS = [
    *(pytest.param(Cast.of(one), marks=pytest.mark.long) for one in ("1.30.0", "1.35.0", "1.39.0")),
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
