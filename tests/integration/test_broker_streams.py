"""Streams that another superlink is making, and streams with settings of an operator."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.stream_trials import StreamTrials
from flower_nats.broker.streams import ensure_streams

STREAM = "FN_LATE"


@pytest.fixture
async def missing(connection: Connection) -> AsyncIterator[str]:
    yield STREAM
    await connection.ask(f"$JS.API.STREAM.DELETE.{STREAM}", b"")


async def test_a_stream_that_is_about_to_be_there_is_waited_for(
    connection: Connection, missing: str
) -> None:
    asked = asyncio.gather(
        connection.info(missing),
        connection.purge(missing, "late"),
        connection.last(missing, "late"),
        connection.subjects(missing, "late"),
    )
    while connection.retries < 4:
        await asyncio.sleep(0.01)
    assert not asked.done()

    await connection.ensure_stream({"name": missing, "subjects": ["late"], "num_replicas": 1})

    _, purged, newest, subjects = await asked
    assert (purged, newest, subjects) == (0, None, [])


async def test_what_an_operator_has_set_on_a_stream_stays(
    connection: Connection, missing: str
) -> None:
    ours = {"name": missing, "subjects": ["late"], "num_replicas": 1, "discard": "new"}
    await connection.ensure_stream(ours)
    theirs = {"max_bytes": 1_000_000, "description": "as we like it", "metadata": {"team": "a"}}
    update = json.dumps({**(await connection.info(missing))["config"], **theirs}).encode()
    await connection.ask(f"$JS.API.STREAM.UPDATE.{missing}", update)

    await connection.ensure_stream({**ours, "subjects": ["late", "later"]})

    config = (await connection.info(missing))["config"]
    assert config["subjects"] == ["late", "later"]
    assert (config["max_bytes"], config["description"]) == (1_000_000, "as we like it")
    assert config["metadata"]["team"] == "a"


async def test_a_stream_that_takes_no_trials_yet_counts_as_storing_while_it_has_a_leader(
    connection: Connection,
) -> None:
    """Superlinks of the former version make such streams, and new gateways may meet them."""
    config = (await connection.info(subjects.LOGS_STREAM))["config"]
    older = json.dumps({**config, "subjects": [subjects.LOGS_SUBJECTS]}).encode()
    await connection.ask(f"$JS.API.STREAM.UPDATE.{subjects.LOGS_STREAM}", older)
    trials = StreamTrials(connection)

    await trials.look()

    assert trials()
    assert trials.failures == {}
    await ensure_streams(connection)
