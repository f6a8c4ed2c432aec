"""The streams are deleted, or NATS loses its disk: the runtime makes the streams again."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.embedded.nats_server import NatsServer
from harness.children import PATIENCE
from tests.integration.superlinks import Superlink, running_superlink


async def has_ended(superlink: Superlink, run_id: int) -> tuple[str | None, str, str]:
    async with asyncio.timeout(PATIENCE):
        while (state := await superlink.status(run_id))[0] != "finished":
            await asyncio.sleep(0.2)
    return state


async def until_streams_are_there(connection: Connection) -> None:
    async with asyncio.timeout(PATIENCE):
        while await connection.stream_names("fn.>") != set(subjects.STREAMS):
            await asyncio.sleep(0.2)


async def test_streams_that_were_deleted_are_made_again_and_runs_under_way_fail(
    nats_url: str, pg_dsn: str
) -> None:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        at_work = await superlink.running_task()
        waiting = await superlink.start_run()
        for stream in subjects.STREAMS:
            await superlink.connection.ask(f"$JS.API.STREAM.DELETE.{stream}", b"")

        _, sub_status, details = await has_ended(superlink, at_work.run_id)
        await until_streams_are_there(superlink.connection)

        assert sub_status == "failed"
        assert "lost the messages of this run" in details
        # This run had nothing in the broker yet.
        assert (await superlink.status(waiting.run_id))[0] == "pending"
        await superlink.connection.store(subjects.push(1, "0" * 32, 0), b"stored again")
        assert (await superlink.command("Status"))["streams_lost"] == len(subjects.STREAMS)


async def test_a_superlink_that_starts_after_the_loss_ends_the_runs_as_well(
    tmp_path: Path, pg_dsn: str
) -> None:
    server = NatsServer(tmp_path / "nats")
    url = await server.start()
    try:
        async with running_superlink(url, pg_dsn) as superlink:
            run_id = (await superlink.running_task()).run_id
        await server.stop()
        shutil.rmtree(tmp_path / "nats" / "store")
        await server.start()

        async with running_superlink(url, pg_dsn) as superlink:
            _, sub_status, _ = await has_ended(superlink, run_id)

            assert sub_status == "failed"
            await superlink.running_task()
    finally:
        await server.stop()


async def test_nats_comes_back_without_its_disk_under_a_superlink(
    tmp_path: Path, pg_dsn: str
) -> None:
    server = NatsServer(tmp_path / "nats")
    url = await server.start()
    try:
        async with running_superlink(url, pg_dsn) as superlink:
            run_id = (await superlink.running_task()).run_id
            await server.stop()
            shutil.rmtree(tmp_path / "nats" / "store")
            await server.start()

            _, sub_status, _ = await has_ended(superlink, run_id)
            await until_streams_are_there(superlink.connection)

            assert sub_status == "failed"
            await superlink.running_task()
    finally:
        await server.stop()


async def test_a_log_stream_that_is_lost_ends_no_run(nats_url: str, pg_dsn: str) -> None:
    async with running_superlink(nats_url, pg_dsn) as superlink:
        task = await superlink.running_task()
        subject = f"$JS.API.STREAM.DELETE.{subjects.LOGS_STREAM}"
        await superlink.connection.ask(subject, b"")

        await until_streams_are_there(superlink.connection)

        assert (await superlink.status(task.run_id))[0] == "running"
