"""PostgreSQL takes all connections of the replicas of `flower-nats up`, for any number of them."""

from __future__ import annotations

import pytest

from flower_nats_cli.stack import database_size

POSTGRES_KEEPS = 3
"""Connections that only a superuser gets (superuser_reserved_connections)."""


@pytest.mark.parametrize("replicas", [1, 2, 3, 12, 32])
def test_all_connections_of_all_superlinks_fit(replicas: int) -> None:
    superlink, server = database_size(replicas)

    assert replicas * superlink + POSTGRES_KEEPS < server
    assert superlink >= 5
    assert server <= 250
