"""Bad input on the HTTP port: Flower's own answer or a closed connection, and nothing stays."""

from __future__ import annotations

import asyncio
import resource
import socket
import ssl
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import httpx
import numpy as np
import psutil
import pytest
import pytest_asyncio
import uvloop
from flwr.app import ArrayRecord, RecordDict
from structlog.testing import capture_logs

from flower_nats.settings import TlsFiles
from flower_nats.wire import common_pb2 as common
from flower_nats.wire import control_pb2 as control
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire import runtime_pb2 as runtime
from flower_nats.wire.methods import BY_NAME, CONTROL, FLEET, RUNTIME
from flower_nats_gateway.calls import bodies
from flower_nats_gateway.transports import notices
from flower_nats_gateway.transports.http import body as http_body
from flower_nats_gateway.transports.http import listener, protocol
from harness.certificates import create_server_certificates
from harness.channels import GrpcChannel, HttpChannel, Metadata, Refused
from harness.children import PATIENCE
from harness.messages import instruction
from harness.raw_http import Answer, Connection, connect, head_of, header_lines
from tests.integration.gateways import Gateway, running_stack

PATH = BY_NAME[("Control", "ListFederations")].http_path
SOON = 0.5
"""Seconds, in place of limits that are too long for a test."""


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def event_loop_policy() -> uvloop.EventLoopPolicy:
    """The policy of a gateway's event loop."""
    return uvloop.EventLoopPolicy()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(nats_url: str, create_database: Callable[[], str]) -> AsyncIterator[Gateway]:
    """A gateway that tests share."""
    async with running_stack(nats_url, create_database(), "http") as gateway:
        yield gateway


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(shared: Gateway) -> AsyncIterator[Gateway]:
    """The shared gateway; checks that the test leaves nothing behind in it."""
    assert await still_serves(shared)
    await hang_up(shared)
    before = await held(shared)
    yield shared
    await hang_up(shared)
    async with asyncio.timeout(PATIENCE):
        while await held(shared) - before or await shared.in_hand() != IDLE:
            await asyncio.sleep(0.05)


async def hang_up(gateway: Gateway) -> None:
    """Close the connections of the test's clients."""
    for service, channel in gateway.channels.items():
        await channel.close()
        gateway.channels[service] = gateway.channel(service)


IDLE = {"held_calls": 0, "calls_in_hand": 0}


async def held(gateway: Gateway) -> Counter[str]:
    """Count what this process holds: tasks by name, and file descriptors.

    The database connections of the superlinks in this process do not count: their pools keep
    connections that earlier calls have needed.
    """
    kinds = ("http arrival", "grpc passage", "RequestResponseCycle")
    process = psutil.Process()
    while True:
        descriptors = process.num_fds()
        row = await gateway.superlink.database.fetch_one(
            "SELECT count(*) AS count FROM pg_stat_activity WHERE backend_type = 'client backend'"
        )
        assert row is not None
        # Otherwise a connection has begun or ended during the count.
        if process.num_fds() == descriptors:
            break
    tasks = Counter(kind for task in asyncio.all_tasks() for kind in kinds if kind in repr(task))
    tasks["descriptors"] = descriptors - int(row["count"])
    return tasks


@contextmanager
def logged_once(event: str, **facts: object) -> Iterator[None]:
    """Expect this one line above `info`; a recent equal line does not suppress it."""
    with logged() as lines:
        yield
    [line] = lines
    assert line["event"] == event, line
    assert {name: line.get(name) for name in facts} == facts


@contextmanager
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """Yield a list, which gets the log lines above `info` at the end of the context."""
    notices._last.clear()
    lines: list[MutableMapping[str, Any]] = []
    with capture_logs() as all_lines:
        yield lines
    lines += [one for one in all_lines if one["log_level"] not in ("debug", "info")]


async def ask(gateway: Gateway, *parts: bytes) -> Answer:
    """Send these bytes on a new connection, and return the answer."""
    async with await connect(gateway.address("Control")) as one:
        await one.send(*parts)
        return await one.answer()


def request(*lines: str, body: bytes = b"") -> bytes:
    """Return a request of these lines."""
    length = (f"content-length: {len(body)}",) if body else ()
    return "\r\n".join((*lines, *length, "", "")).encode("latin-1") + body


async def still_serves(gateway: Gateway) -> bool:
    """Return whether the gateway answers a call as usual."""
    answer = await gateway.call("Control", "ListFederations", control.ListFederationsRequest())
    return bool(answer.federations)


# Requests that are not calls


OTHER_KINDS: list[list[str]] = [
    [],
    ["content-type: application/json"],
    ["content-type: application/grpc"],
    ["content-type:"],
    ["content-type: application/protobuf", "content-type: text/html"],
]


async def test_another_content_type_is_415(gateway: Gateway) -> None:
    for kinds in OTHER_KINDS:
        with logged_once("http_request_refused", status=415):
            answer = await ask(gateway, request(f"POST {PATH} HTTP/1.1", "host: x", *kinds))

        assert (answer.status, answer.said["code"]) == (415, 1002), kinds
        assert answer.headers["content-type"] == "application/json"


async def test_a_parameter_of_the_content_type_does_not_matter(gateway: Gateway) -> None:
    kind = "content-type: Application/Protobuf; charset=utf-8"
    answer = await ask(gateway, request(f"POST {PATH} HTTP/1.1", "host: x", kind))

    assert answer.status == 200


async def test_an_unknown_path_is_404(gateway: Gateway) -> None:
    for path in ("/", "/v1/fleet/no-such-thing", f"{PATH}/", "/v2/control/list-runs", "/%00", "*"):
        with logged_once("http_request_refused", status=404, client_version="1.99.0"):
            said = request(f"POST {path} HTTP/1.1", "host: x", "flwr-package-version: 1.99.0")
            answer = await ask(gateway, said)

        assert (answer.status, answer.said) == (404, {"detail": "Not Found"}), path


async def test_a_client_of_another_api_hears_at_controls_own_port_which_port_it_needs(
    gateway: Gateway,
) -> None:
    with logged_once("http_request_refused", status=404, client_version="1.42.0"):
        async with await connect(gateway.settings.control_api_address) as one:
            said = ("host: x", "flwr-package-version: 1.42.0", "content-length: 0")
            await one.send(request("POST /v1/fleet/register-node HTTP/1.1", *said))
            answer = await one.answer()

    assert answer.status == 404
    assert answer.said["detail"].startswith("This port serves the Control API of Flower alone.")


async def test_a_newer_flower_is_served_and_the_log_says_once_that_it_is_untried(
    gateway: Gateway,
) -> None:
    kind = "content-type: application/protobuf"
    with logged_once("untried_flower_version", version="1.99.0", newest_tried="1.42"):
        for version in ("1.42.3", "1.99.0", "1.99.0", "new"):
            said = (f"flwr-package-version: {version}", "content-length: 0")
            answer = await ask(gateway, request(f"POST {PATH} HTTP/1.1", "host: x", kind, *said))
            assert answer.status == 200


async def test_another_verb_is_405(gateway: Gateway) -> None:
    for verb in ("GET", "PUT", "DELETE", "OPTIONS", "PATCH"):
        with logged_once("http_request_refused", status=405):
            answer = await ask(gateway, request(f"{verb} {PATH} HTTP/1.1", "host: x"))

        assert (answer.status, answer.said) == (405, {"detail": "Method Not Allowed"}), verb
        assert answer.headers["allow"] == "POST"


async def test_health_is_for_reading(gateway: Gateway) -> None:
    statuses = {
        verb: (await ask(gateway, request(f"{verb} /health HTTP/1.1"))).status
        for verb in ("GET", "HEAD", "POST")
    }

    assert statuses == {"GET": 200, "HEAD": 200, "POST": 405}


async def test_a_refused_body_is_not_taken_for_the_next_request(gateway: Gateway) -> None:
    call = request(f"POST {PATH} HTTP/1.1", "content-type: application/protobuf")
    async with await connect(gateway.address("Control")) as one:
        await one.send(request("POST /nowhere HTTP/1.1", body=call), call)

        assert (await one.answer()).status == 404
        assert (await one.answer()).status == 200


async def test_there_is_no_upgrade(gateway: Gateway) -> None:
    for upgrade in ("websocket", "h2c"):
        lines = (f"GET {PATH} HTTP/1.1", "connection: upgrade", f"upgrade: {upgrade}")
        assert (await ask(gateway, request(*lines))).status == 405


# The callers


def broken(header: str, value: str) -> Mapping[str, list[str]]:
    """Return broken variants of a header."""
    return {
        "missing": [],
        "doubled": [f"{header}: {value}"] * 2,
        "not base64": [f"{header}: {value[:-4]}*~*="],
        "not padded": [f"{header}: {value.rstrip('=')[:-1]}"],
        "empty": [f"{header}:"],
    }


@pytest.mark.parametrize("header", ["flwr-public-key", "flwr-signature", "flwr-timestamp"])
async def test_a_header_that_proves_nothing_is_401(gateway: Gateway, header: str) -> None:
    node = await gateway.node()
    lines = dict(line.split(": ", 1) for line in header_lines(node.metadata()))
    value = lines.pop(header)
    body = fleet.PullMessagesRequest(node=node.node).SerializeToString()
    whole = [f"{name}: {text}" for name, text in lines.items()]
    for how, more in broken(header, value).items():
        head = head_of("Fleet", "PullMessages", (), len(body), *whole, *more)

        with logged_once("call_refused", rpc="Fleet.PullMessages"):
            answer = await ask(gateway, head, body)

        assert answer.status == 401, how
        assert "code" not in answer.said


async def test_names_that_only_grpc_has_are_not_read(gateway: Gateway) -> None:
    node = await gateway.node()
    body = fleet.PullMessagesRequest(node=node.node).SerializeToString()
    lines = [line.replace(": ", "-bin: ", 1) for line in header_lines(node.metadata())]
    answer = await ask(gateway, head_of("Fleet", "PullMessages", (), len(body), *lines), body)

    assert answer.status == 401


async def test_a_task_token_comes_once(gateway: Gateway) -> None:
    app = await gateway.server_app()
    for times in (0, 2):
        token = [f"flwr-task-token: {app.token}"] * times

        with logged_once("call_refused", rpc="Runtime.GetNodes"):
            answer = await ask(gateway, head_of("Runtime", "GetNodes", (), 0, *token))

        assert (answer.status, answer.said["code"]) == (401, 1008)


# Heads


GARBAGE = [
    b"\x00\x01\x02\x03\r\n\r\n",
    b"HELLO\r\n\r\n",
    b"POST  HTTP/1.1\r\n\r\n",
    b"POST /\xff HTTP/1.1\r\n\r\n",
    b"POST gateway:80 HTTP/1.1\r\n\r\n",
    b"POST http://gateway HTTP/1.1\r\n\r\n",
    b"CONNECT gateway:443 HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
    b"POST / HTTP/1.1\r\na b: c\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\n folded\r\n\r\n",
    b"POST / HTTP/1.1\r\nname: a\x00b\r\n\r\n",
    b"POST / HTTP/3.7\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
    b"POST / HTTP/1.1\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
    b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
]


async def test_what_is_no_http_is_400_and_the_end(gateway: Gateway) -> None:
    await asyncio.gather(*(is_400_and_the_end(gateway, one) for one in GARBAGE))

    with logged() as lines:
        for garbage in GARBAGE:
            await ask(gateway, garbage)
    # Some have a well-formed head with an unknown path.
    events = [line["event"] for line in lines]
    assert events in (
        ["malformed_http_request"],
        ["malformed_http_request", "http_request_refused"],
    )
    assert await still_serves(gateway)


async def is_400_and_the_end(gateway: Gateway, garbage: bytes) -> None:
    async with await connect(gateway.address("Control")) as one:
        await one.send(garbage)
        answer = await one.answer()
        await one.until_closed()

    assert answer.status == 400, garbage
    assert answer.headers["connection"] == "close", garbage


@pytest.mark.parametrize("lines", [1, 1000])
async def test_a_head_of_more_than_64_kb_is_400_and_the_end(gateway: Gateway, lines: int) -> None:
    size = 200_000 // lines
    more = "".join(f"x-{number}: {'y' * size}\r\n" for number in range(lines))

    with logged_once("malformed_http_request", reason="The head of the request is too long."):
        async with await connect(gateway.address("Control")) as one:
            with suppress(ConnectionError):
                await one.send(f"POST {PATH} HTTP/1.1\r\n".encode(), more.encode())
            answer = await one.answer()
            await one.until_closed()

    assert answer.status == 400


async def test_a_head_of_60_kb_is_read(gateway: Gateway) -> None:
    answer = await ask(gateway, head_of("Control", "ListFederations", (), 0, "x: " + "y" * 60_000))

    assert answer.status == 200


async def test_a_slow_head_is_the_end(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "_HEAD_SECONDS", SOON)
    with logged_once("http_head_too_slow"):
        async with await connect(gateway.address("Control")) as one:
            dribbling = asyncio.create_task(dribble(one, head_of("Control", "ListRuns", (), 0)))
            await one.until_closed()
            await dribbling

    assert await still_serves(gateway)


async def dribble(connection: Connection, data: bytes) -> None:
    """Send bytes one by one."""
    with suppress(ConnectionError):
        for byte in data:
            await connection.send(bytes([byte]))
            await asyncio.sleep(SOON / 10)


async def test_absolute_targets_are_served(gateway: Gateway) -> None:
    """A web proxy may send absolute targets."""
    lines = (f"POST http://gateway:8000{PATH} HTTP/1.1", "host: gateway:8000")
    answer = await ask(gateway, request(*lines, "content-type: application/protobuf"))

    assert answer.status == 200


async def test_http_1_0_is_served_with_an_answer_of_known_length(gateway: Gateway) -> None:
    head = head_of("Control", "ListFederations", (), 0).replace(b"HTTP/1.1", b"HTTP/1.0")
    async with await connect(gateway.address("Control")) as one:
        await one.send(head)
        answer = await one.answer()
        assert await one.until_closed() == "end"

    assert answer.status == 200
    assert int(answer.headers["content-length"]) == len(answer.body) > 0


async def test_pipelined_requests_are_answered_in_order(gateway: Gateway) -> None:
    node = await gateway.node()
    body = fleet.PullMessagesRequest(node=node.node).SerializeToString()
    first = head_of("Fleet", "PullMessages", node.metadata(), len(body)) + body
    second = head_of("Control", "ListFederations", (), 0)
    third = request("GET /health HTTP/1.1")
    async with await connect(gateway.address("Control")) as one:
        await one.send(first + second + third)
        await gateway.until_in_hand(1)
        app = await gateway.server_app()
        await app.send(instruction(app.run_id, node.node_id))

        pulled, listed, healthy = [await one.answer() for _ in range(3)]

    assert fleet.PullMessagesResponse.FromString(pulled.body).messages_list
    assert control.ListFederationsResponse.FromString(listed.body).federations
    assert (healthy.status, healthy.body) == (200, b"")


async def test_a_client_that_asks_first_is_told_to_go_on(gateway: Gateway) -> None:
    body = control.ListRunsRequest(limit=3).SerializeToString()
    async with await connect(gateway.address("Control")) as one:
        await one.send(head_of("Control", "ListRuns", (), len(body), "expect: 100-continue"))
        assert (await one.answer()).status == 100
        await one.send(body)

        assert (await one.answer()).status == 200


async def test_a_client_that_asks_first_and_proves_nothing_is_not(gateway: Gateway) -> None:
    head = head_of("Fleet", "PushObject", (), 100_000_000, "expect: 100-continue")
    assert (await ask(gateway, head)).status == 401


# Bodies


async def test_a_chunked_body_is_served(gateway: Gateway) -> None:
    body = control.ListRunsRequest(limit=3).SerializeToString()
    chunks = b"".join(b"1;x=y\r\n" + body[at : at + 1] + b"\r\n" for at in range(len(body)))
    head = head_of("Control", "ListRuns", (), None, "transfer-encoding: chunked")
    answer = await ask(gateway, head, chunks, b"0\r\ntrailer: x\r\n\r\n")

    assert answer.status == 200


async def test_a_body_that_is_not_the_message_is_400(gateway: Gateway) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    proofs: dict[str, Metadata] = {
        "Fleet": node.metadata(),
        "Runtime": [("flwr-task-token", app.token)],
        "Control": (),
    }
    garbage = b"\xff\xff\xff\xff garbage"
    heard: dict[str, set[tuple[int, int | None]]] = {}
    for method in (*FLEET, *RUNTIME, *CONTROL):
        head = head_of(method.api, method.name, proofs[method.api], len(garbage))
        answer = await ask(gateway, head, garbage)
        code = answer.said.get("code") if answer.status != 200 else None
        heard.setdefault(method.api, set()).add((answer.status, code))

    assert heard["Fleet"] == {(400, 1003)}
    assert (400, 1003) in heard["Runtime"]
    assert (400, 1003) in heard["Control"]
    for answers in heard.values():
        assert {status for status, _ in answers}.isdisjoint({500, 502, 503, 504})
    nodes = (await app.call("GetNodes", runtime.GetNodesRequest())).nodes
    assert node.node_id in {one.node_id for one in nodes}


async def test_a_body_over_the_limit_is_413_and_the_connection_goes_on(
    nats_url: str, pg_dsn: str
) -> None:
    limit = BY_NAME[("Control", "ListRuns")].longest_request
    async with (
        running_stack(nats_url, pg_dsn, "http") as gateway,
        await connect(gateway.address("Control")) as one,
    ):
        with logged_once("call_refused", rpc="Control.ListRuns"):
            await one.send(head_of("Control", "ListRuns", (), 5 * limit), b"x" * 5 * limit)
            refused = await one.answer()
        await one.send(head_of("Control", "ListFederations", (), 0))
        served = await one.answer()

    assert refused.status == 413
    assert str(limit) in refused.said["detail"]
    assert served.status == 200


async def test_an_endless_body_is_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_DISCARDED", 1_000_000)
    head = head_of("Fleet", "PushObject", (), None, "transfer-encoding: chunked")
    chunk = b"%x\r\n" % 100_000 + bytes(100_000) + b"\r\n"
    async with await connect(gateway.address("Fleet")) as one:
        await one.send(head)
        assert (await one.answer()).status == 401
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(PATIENCE):
                while True:
                    await one.send(chunk)


async def test_a_body_that_stops_is_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PAUSE", SOON)
    async with await connect(gateway.address("Control")) as one:
        await one.send(head_of("Control", "StartRun", (), 1000), b"half")
        await one.until_closed()

    assert await still_serves(gateway)


@pytest.mark.parametrize("hang_up", [Connection.close, Connection.reset])
async def test_a_client_that_goes_away_in_its_body_leaves_nothing(
    gateway: Gateway, hang_up: Any
) -> None:
    for _ in range(20):
        async with await connect(gateway.address("Control")) as one:
            await one.send(head_of("Control", "StartRun", (), 10_000_000), bytes(1_000_000))
            hang_up(one)

    assert await still_serves(gateway)


SLOW = 12
MODEL = 1_500_000
"""Numbers of 8 bytes in an object's array: more than the system buffers for a connection."""


async def test_readers_that_do_not_read_cost_little_memory_and_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, app = await gateway.node(), await gateway.server_app()
    model = RecordDict({"model": ArrayRecord([np.random.rand(MODEL)])})
    question = instruction(app.run_id, node.node_id, model)
    await app.send(question)
    large = max(question.objects, key=lambda one: len(question.objects[one]))
    wanted = common.PullObjectRequest(node=node.node, run_id=app.run_id, object_id=large)
    body = wanted.SerializeToString()
    monkeypatch.setattr(http_body, "PAUSE", 3.0)
    assert (await node.pull_object(app.run_id, large)).object_available
    memory = psutil.Process().memory_info().rss

    slow = [await small_window(gateway.address("Fleet")) for _ in range(SLOW)]
    for one in slow:
        await one.send(head_of("Fleet", "PullObject", node.metadata(), len(body)) + body)
    async with asyncio.timeout(PATIENCE):
        while (await gateway.in_hand())["calls_in_hand"] < SLOW:
            await asyncio.sleep(0.05)
    # Other callers do not wait for them for long.
    assert (await node.pull_object(app.run_id, large)).object_available

    grown = psutil.Process().memory_info().rss - memory
    await gateway.until_in_hand(0)
    for one in slow:
        one.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert await one.until_closed() == "reset"
        one.writer.transport.abort()
    assert grown < SLOW * MODEL * 8 / 2


async def test_a_reader_that_leaves_the_end_of_an_answer_unread_is_cut_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "PAUSE", SOON)
    # More than the system buffers for a connection.
    monkeypatch.setattr(http_body, "PIECE", 2 * MODEL * 8)
    node, app = await gateway.node(), await gateway.server_app()
    model = RecordDict({"model": ArrayRecord([np.random.rand(MODEL)])})
    question = instruction(app.run_id, node.node_id, model)
    await app.send(question)
    large = max(question.objects, key=lambda one: len(question.objects[one]))
    wanted = common.PullObjectRequest(node=node.node, run_id=app.run_id, object_id=large)
    body = wanted.SerializeToString()
    one = await small_window(gateway.address("Fleet"))
    connections = len(psutil.Process().net_connections())

    await one.send(head_of("Fleet", "PullObject", node.metadata(), len(body)) + body)
    async with asyncio.timeout(PATIENCE):
        while len(psutil.Process().net_connections()) >= connections:
            await asyncio.sleep(0.05)
    one.writer.transport.abort()


async def small_window(address: str) -> Connection:
    """Connect like a client that takes a few kilobytes and then no more."""
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    one = Connection(*await asyncio.open_connection(sock=sock, limit=1024))
    one.writer.transport.pause_reading()  # type: ignore[attr-defined]
    return one


# Silence


SILENT = 10_000
SILENT_CALLERS = """
import select, socket, sys
address, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
held = [socket.create_connection(address, 30) for _ in range(count)]
print("silent", flush=True)
ended = 0
for one in held:
    one.settimeout(60)
    ended += one.recv(1) == b""
print(ended, flush=True)
"""


async def test_ten_thousand_silent_connections_hinder_nobody_and_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_FIRST_BYTES_SECONDS", 8.0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard > SILENT
    host, _, port = gateway.settings.http_api_address.partition(":")
    node, app = await gateway.node(), await gateway.server_app()
    with logged_once("silent_connection"):
        # They run in their own process, because each takes a file descriptor at both ends.
        command = [sys.executable, "-c", SILENT_CALLERS, host, port, str(SILENT)]
        callers = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert callers.stdout is not None
        assert await asyncio.wait_for(callers.stdout.readline(), 60) == b"silent\n"

        question = instruction(app.run_id, node.node_id)
        await app.send(question)
        assert (await node.pull())[0].metadata.message_id == question.message_id
        assert callers.returncode is None

        assert await asyncio.wait_for(callers.stdout.readline(), 60) == b"%d\n" % SILENT
        await callers.wait()


async def test_a_connection_that_falls_silent_after_a_call_is_kept_for_a_while_only(
    nats_url: str, pg_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_IDLE_SECONDS", 2.0)
    async with (
        running_stack(nats_url, pg_dsn, "http") as gateway,
        await connect(gateway.address("Control")) as one,
    ):
        for _ in range(2):
            await one.send(head_of("Control", "ListFederations", (), 0))
            assert (await one.answer()).status == 200
            await asyncio.sleep(1.0)
        await one.send(b"\r\n")
        assert await one.until_closed() == "end"


# TLS, and gRPC


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    files = create_server_certificates(tmp_path_factory.mktemp("certificates"))
    return TlsFiles(files.certificate, files.key, files.ca_certificate)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tls_gateway(
    nats_url: str, create_database: Callable[[], str], tls: TlsFiles
) -> AsyncIterator[Gateway]:
    database = create_database()
    async with running_stack(nats_url, database, "http", tls=tls) as gateway:
        yield gateway


def trusting(tls: TlsFiles, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca_certificate))
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


async def over_tls(gateway: Gateway, tls: TlsFiles) -> bool:
    """Return whether a stock client is served."""
    channel = HttpChannel(gateway.address("Control"), trusting(tls))
    try:
        answer = await channel.unary(BY_NAME[("Control", "ListFederations")], b"")
        return bool(control.ListFederationsResponse.FromString(answer).federations)
    finally:
        await channel.close()


async def test_tls_is_served(tls_gateway: Gateway, tls: TlsFiles) -> None:
    assert await over_tls(tls_gateway, tls)


async def test_plain_http_on_a_tls_port_is_told_so(tls_gateway: Gateway, tls: TlsFiles) -> None:
    address = tls_gateway.address("Control")
    says = {"flwr-package-version": "1.42.0"}
    with logged_once("no_tls_on_a_tls_port", client_version="1.42.0"):
        for _ in range(3):
            async with httpx.AsyncClient(trust_env=False, headers=says) as client:
                answer = await client.post(f"http://{address}{PATH}", content=b"x" * 100_000)
                assert answer.status_code == 400
                assert "--root-certificates" in answer.json()["detail"]
    assert await over_tls(tls_gateway, tls)


async def test_plain_grpc_on_a_tls_port_is_logged(tls_gateway: Gateway) -> None:
    channel = GrpcChannel(tls_gateway.address("Control"))
    with logged_once("no_tls_on_a_tls_port", client_version=None):
        with pytest.raises(Refused, match="UNAVAILABLE"):
            await channel.unary(BY_NAME[("Control", "ListFederations")], b"")
        await channel.close()


async def test_tls_on_a_plain_port_is_logged_and_the_client_speaks_of_ssl(
    gateway: Gateway, tls: TlsFiles
) -> None:
    with logged_once("tls_on_a_plain_port"):
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match="SSL"):
                async with httpx.AsyncClient(verify=trusting(tls), trust_env=False) as client:
                    await client.post(f"https://{gateway.address('Control')}{PATH}")
    assert await still_serves(gateway)


async def test_a_client_that_trusts_another_authority_is_logged(tls_gateway: Gateway) -> None:
    with capture_logs() as lines:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError, match="certificate"):
                async with httpx.AsyncClient(trust_env=False) as client:
                    await client.post(f"https://{tls_gateway.address('Control')}{PATH}")
        # The server notices the failure later than the client.
        async with asyncio.timeout(PATIENCE):
            while not (failures := [one for one in lines if "tls" in one["event"]]):
                await asyncio.sleep(0.05)
    assert [one["event"] for one in failures] == ["tls_handshake_failed"]


async def test_silence_after_a_handshake_is_the_end(
    nats_url: str, pg_dsn: str, tls: TlsFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_IDLE_SECONDS", SOON)
    async with (
        running_stack(nats_url, pg_dsn, "http", tls=tls) as gateway,
        await connect(gateway.address("Control"), trusting(tls, "http/1.1")) as one,
    ):
        await one.until_closed()


async def test_a_handshake_that_stops_is_the_end(
    tls_gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_HANDSHAKE_SECONDS", SOON)
    async with await connect(tls_gateway.address("Control")) as one:
        await one.send(client_hello()[:50])
        await one.until_closed()


def client_hello() -> bytes:
    """Return the first flight of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="gateway")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("sent", [0, 1, 50, 10_000])
async def test_who_is_in_a_handshake_when_the_gateway_ends_is_reset(
    nats_url: str, pg_dsn: str, tls: TlsFiles, sent: int
) -> None:
    """Stock clients try again only after a reset in a handshake."""
    async with running_stack(nats_url, pg_dsn, "http", tls=tls) as gateway:
        async with await connect(gateway.address("Control")) as one:
            await one.send(client_hello()[:sent])
            assert await over_tls(gateway, tls)

            gateway.stop.set()
            assert await one.until_closed() == "reset"
        async with asyncio.timeout(PATIENCE):
            await gateway.running


def grpc_ways(gateway: Gateway, tls: TlsFiles) -> Mapping[str, grpc.aio.Channel]:
    trusted = grpc.ssl_channel_credentials(Path(tls.ca_certificate).read_bytes())
    address = gateway.settings.http_api_address
    return {
        "plain": grpc.aio.insecure_channel(address),
        "tls": grpc.aio.secure_channel(address, trusted),
    }


@pytest.mark.parametrize("way", ["plain", "tls"])
async def test_grpc_on_the_http_port_is_served(
    nats_url: str, pg_dsn: str, tls: TlsFiles, way: str
) -> None:
    own = tls if way == "tls" else None
    async with (
        running_stack(nats_url, pg_dsn, "http", tls=own) as gateway,
        grpc_ways(gateway, tls)[way] as channel,
    ):
        call: Any = channel.unary_unary(BY_NAME[("Control", "ListFederations")].path)
        for _ in range(3):
            assert control.ListFederationsResponse.FromString(await call(b"")).federations


async def test_half_of_a_preface_is_the_end(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_FIRST_BYTES_SECONDS", SOON)
    async with await connect(gateway.address("Control")) as one:
        await one.send(b"PRI * HT")
        await one.until_closed()
    assert await still_serves(gateway)
