"""Real servers for tests: NATS per module, one PostgreSQL with a database per test."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
import structlog
from psycopg import sql

from flower_nats.embedded import ports
from flower_nats.embedded.nats_server import NatsServer
from flower_nats.embedded.postgres_server import PostgresServer
from flower_nats.store.connection import Database
from flower_nats.store.migrate import migrate

# Its assertions then explain themselves, like those of tests.
pytest.register_assert_rewrite("tests.faults.trial")

_numbers = itertools.count(1)

_FIXTURES_SHARE = 60.0
"""Seconds of a test's time limit that are left for its fixtures."""

# A test restarts a killed server on the same port. The other workers do not see that this port is
# taken, so each worker has a range. `flower-nats up` does not see it either: its ports are above.
_PORTS = 2500
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
ports.RANGE = range(10_000 + _WORKER * _PORTS, 10_000 + (_WORKER + 1) * _PORTS)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Choose an order that uses all cores; give each coroutine a time limit of its own."""
    items[:] = alternating(items)
    limit = config.getoption("timeout")
    if limit is None:
        limit = float(config.getini("timeout"))
    if limit > _FIXTURES_SHARE:
        for item in items:
            if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
                item.obj = in_time(item.obj, limit - _FIXTURES_SHARE)


def alternating(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Alternate files of busy tests (abuse, e2e: stock processes) with waiting ones (faults).

    Workers take the files in this order. The short tests (integration and unit) come last.
    """
    files = {file: list(tests) for file, tests in itertools.groupby(items, lambda item: item.path)}
    busy = [file for file in files if file.parent.name in {"abuse", "e2e"}]
    waiting = [file for file in files if file.parent.name == "faults"]
    rest = [file for file in files if file not in {*busy, *waiting}]
    turns = itertools.chain.from_iterable(itertools.zip_longest(busy, waiting))
    order = [*filter(None, turns), *rest]
    return [test for file in order for test in files[file]]


def in_time(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    """Cancel a slow test: its traceback shows where it waits, and its cleanup runs.

    pytest-timeout's signal would interrupt the event loop instead. The test would stay in the loop as
    a task, and run on beside the next tests that share the loop.
    """

    @functools.wraps(test)
    async def bounded(**given: Any) -> None:
        async with asyncio.timeout(seconds):
            await test(**given)

    return bounded


@pytest.fixture(autouse=True, scope="session")
def loggers_are_not_cached() -> Iterator[None]:
    """Do not cache loggers: a cached logger keeps the configuration of an earlier test."""
    configure = structlog.configure

    def configure_uncached(**given: Any) -> None:
        configure(**{**given, "cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", configure_uncached)
        yield


@pytest.fixture(scope="module")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a nats-server for this module alone; the server is empty at first."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    yield asyncio.run(server.start())
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def pg_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The session's PostgreSQL."""
    server = PostgresServer(tmp_path_factory.mktemp("postgres"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def create_empty_database(pg_server: PostgresServer) -> Callable[[], str]:
    """Create a database without tables; return its connection string."""
    return lambda: _copy_of("template1", pg_server)


@pytest.fixture(scope="session")
def create_database(
    pg_server: PostgresServer, create_empty_database: Callable[[], str]
) -> Callable[[], str]:
    """Create a database with the current schema and no rows; return its connection string."""
    migrated = create_empty_database()
    asyncio.run(_migrate(migrated))
    template = urlsplit(migrated).path.removeprefix("/")
    return lambda: _copy_of(template, pg_server)


def _copy_of(template: str, server: PostgresServer) -> str:
    name = f"test_{next(_numbers)}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    return urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}"))


async def _migrate(dsn: str) -> None:
    database = Database(dsn)
    await database.open()
    await migrate(database)
    await database.close()


@pytest.fixture
def pg_dsn(create_database: Callable[[], str]) -> str:
    """Connection string of the test's own database, with the current schema and no rows."""
    return create_database()


@pytest.fixture
def empty_pg_dsn(create_empty_database: Callable[[], str]) -> str:
    """Connection string of the test's own database, without tables."""
    return create_empty_database()


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A directory for one embedded server or one `flower-nats up`."""
    return tmp_path / "data"
