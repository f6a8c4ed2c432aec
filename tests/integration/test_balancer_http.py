"""The balancer over HTTP: clients do not notice the troubles of a gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from pathlib import Path

import httpx
import pytest

from flower_nats.wire.methods import BY_NAME
from harness.children import PATIENCE
from harness.waiting import until
from tests.integration.http_front import (
    CLIENT_SECONDS,
    GET_NODES,
    PULL_MESSAGES,
    PUSH_OBJECT,
    STREAM_LOGS,
    certificates,
    front,
)
from tests.integration.test_balancer import kill


@pytest.mark.parametrize(
    ("api", "name"), [("Runtime", "PushTaskOutput"), ("Fleet", "PullMessages")]
)
async def test_a_call_in_hand_of_a_gateway_that_is_killed_is_made_at_another(
    tmp_path: Path, api: str, name: str
) -> None:
    async with front(tmp_path) as there:
        victim, path = there.upstreams[0].pid, BY_NAME[(api, name)].http_path

        # A random gateway gets the call: the victim dies of it, the other gateway answers.
        answers = [await there.call(f"die {victim}".encode(), path) for _ in range(15)]

        await until(lambda: there.upstreams[0].exit_code() is not None)
    assert {one.status_code for one in answers} == {200}
    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_held_calls_move_when_their_gateway_is_killed(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        calls = [
            asyncio.create_task(there.call(b"hold 1.5", PULL_MESSAGES.http_path)) for _ in range(50)
        ]
        await asyncio.sleep(0.5)
        kill(there.upstreams[0])

        answers = await asyncio.gather(*calls)

    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_a_farewell_to_a_gateway_that_hangs_is_heard_while_its_process_lives(
    tmp_path: Path,
) -> None:
    """A ServerApp gives its last call at most four seconds."""
    path = BY_NAME[("Runtime", "PushTaskOutput")].http_path
    async with front(tmp_path) as there:
        os.kill(there.upstreams[0].pid, signal.SIGSTOP)

        async with asyncio.timeout(CLIENT_SECONDS):
            answers = await asyncio.gather(*(there.call(b"who", path) for _ in range(10)))

    assert {int(one.content.split()[0]) for one in answers} == {there.upstreams[1].pid}


async def test_a_farewell_that_takes_a_gateway_longer_is_answered_all_the_same(
    tmp_path: Path,
) -> None:
    async with front(tmp_path) as there:
        path = BY_NAME[("Runtime", "PushTaskOutput")].http_path
        answers = await asyncio.gather(*(there.call(b"hold 4", path) for _ in range(10)))

    assert {one.status_code for one in answers} == {200}
    assert len({one.content.split()[1] for one in answers}) == 10


async def test_a_gateway_that_hangs_gets_no_more_calls(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        os.kill(there.upstreams[0].pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)

        async with asyncio.timeout(PATIENCE):
            pids = {await there.serving_pid() for _ in range(20)}

    assert pids == {there.upstreams[1].pid}


async def test_a_large_request_is_made_again_in_full(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        body = b"die %d " % there.upstreams[0].pid + b"x" * 10_000_000
        answers = [await there.call(body, PUSH_OBJECT.http_path) for _ in range(15)]

        await until(lambda: there.upstreams[0].exit_code() is not None)
    assert {int(one.content.split()[2]) for one in answers} == {len(body)}


async def test_large_bodies_arrive_in_full_both_ways(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        sent = await there.call(b"who " + b"x" * 100_000_000, PUSH_OBJECT.http_path)
        received = await there.call(b"large 100000000")

    assert int(sent.content.split()[2]) == 100_000_004
    assert len(received.content) == 100_000_000


async def test_attempts_at_one_call_have_one_request_id_and_calls_have_their_own(
    tmp_path: Path,
) -> None:
    async with front(tmp_path) as there:
        answers = [await there.call(b"who") for _ in range(4)]
        there.client.headers["flower-nats-request-id"] = "mine"
        answers.append(await there.call(b"who"))

    ids = {one.content.split()[1] for one in answers}
    assert len(ids) == 5
    assert b"mine" not in ids


async def test_a_connection_to_a_gateway_that_was_started_again_is_not_missed(
    tmp_path: Path,
) -> None:
    """The balancer keeps connections to gateways, and may find a kept connection closed."""
    async with front(tmp_path, gateways=1) as there:
        for _ in range(3):
            await asyncio.gather(*(there.call(b"who") for _ in range(20)))
            kill(there.upstreams[0])
            await there.upstreams[0].wait()
            await there.upstreams[0].start()

            answers = await asyncio.gather(*(there.call(b"who") for _ in range(20)))

            assert {one.status_code for one in answers} == {200}


async def test_refusals_of_a_gateway_arrive_as_they_are(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        for status in (400, 401, 403, 404, 412, 500, 503):
            answer = await there.call(b"fail %d" % status)

            assert (answer.status_code, answer.json()) == (status, {"detail": "no"})


async def test_a_call_looks_for_a_gateway_until_one_is_there(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        for one in there.upstreams:
            kill(one)
        await until(lambda: there.upstreams[0].exit_code() is not None)
        call = asyncio.create_task(there.call(b"who"))
        await asyncio.sleep(5.0)
        await there.upstreams[0].start()

        assert (await call).status_code == 200


async def test_new_calls_go_past_a_gateway_that_is_not_ready(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        unready = int((await there.call(b"unready")).content.split()[0])
        await asyncio.sleep(2.0)

        pids = {await there.serving_pid() for _ in range(10)}

    assert unready not in pids and len(pids) == 1


async def test_the_health_of_the_gateways_is_told(tmp_path: Path) -> None:
    async with front(tmp_path) as there:
        url = there.url("/health")
        well = [await there.client.get(url), await there.client.head(url)]
        for one in there.upstreams:
            kill(one)
        ill = await there.client.get(url)

    assert [(one.status_code, one.content) for one in well] == [(200, b"")] * 2
    assert ill.status_code == 503


async def test_a_stream_whose_gateway_dies_does_not_look_like_its_end(tmp_path: Path) -> None:
    async with front(tmp_path, gateways=1) as there:
        url = there.url(STREAM_LOGS.http_path)
        async with there.client.stream("POST", url, content=b"20") as answer:
            pieces = answer.aiter_raw()
            assert await anext(pieces) == b"first"
            kill(there.upstreams[0])

            with pytest.raises(httpx.RemoteProtocolError):
                await anext(pieces)


@pytest.mark.parametrize(("port", "encrypted"), [("http", False), ("control", True)])
async def test_a_request_that_is_too_long_hears_so_and_others_go_on(
    tmp_path: Path, port: str, encrypted: bool
) -> None:
    tls = certificates(tmp_path) if encrypted else None
    verify = ssl.create_default_context(cafile=str(tls.ca_certificate)) if tls else True
    start_run = BY_NAME[("Control", "StartRun")]
    async with front(tmp_path, tls) as there:
        for size in (start_run.longest_request + 1, 60 * 1024 * 1024, 300 * 1024 * 1024):
            # Like stock: its client waits in the middle of its body until it is cut off.
            url = there.url(start_run.http_path, port)
            refused = await asyncio.to_thread(
                httpx.post, url, content=bytes(size), timeout=30, verify=verify
            )
            assert refused.status_code == 413
            assert str(start_run.longest_request) in refused.json()["detail"]
        longest = await there.call(b"who " + bytes(10_000_000), start_run.http_path, port)
        other = await there.call(b"who " + bytes(100_000), GET_NODES.http_path)

    assert longest.status_code == 200
    assert other.status_code == 413
