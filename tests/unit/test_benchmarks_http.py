"""The benchmark's HTTP client must load a server like httpx in a stock client."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature

from benchmarks import http_client
from benchmarks.fleet import FleetCalls, Key, Late, Proof, Refused, Tally
from benchmarks.http_client import Connection, HttpClient, TransportError, parse_head, tls_context
from benchmarks.wire_http import HttpWire
from flower_nats.wire import fleet_pb2 as fleet
from flower_nats.wire.methods import BY_NAME
from harness.certificates import create_server_certificates

_HEAD = b"POST /call HTTP/1.1\r\n\r\n"
_SOON = 5.0


@dataclass
class Peer:
    """The server's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """Read the head of a request."""
        async with asyncio.timeout(_SOON):
            return await self.reader.readuntil(b"\r\n\r\n")

    def answer(self, body: bytes = b"", status: str = "200 OK") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)

    async def until_gone(self) -> None:
        """Wait until the client has closed the connection."""
        async with asyncio.timeout(_SOON):
            assert await self.reader.read() == b""


class Server:
    """A server that gives each connection to the test."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.address = ""

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.put_nowait(Peer(reader, writer))

    async def peer(self) -> Peer:
        """Return the next connection."""
        async with asyncio.timeout(_SOON):
            return await self.peers.get()

    def stop(self) -> None:
        self._server.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    one = Server()
    await one.start()
    yield one
    one.stop()


def _calling(client: HttpClient, body: bytes = b"", patience: float = _SOON) -> asyncio.Task[bytes]:
    async def call() -> bytes:
        return bytes((await client.post(_HEAD, body, patience)).body)

    return asyncio.create_task(call())


async def test_a_connection_is_used_again_and_never_for_two_calls_at_once(server: Server) -> None:
    client = HttpClient(server.address, None)

    first = _calling(client)
    one = await server.peer()
    second = _calling(client)
    other = await server.peer()
    for peer, body in ((one, b"one"), (other, b"other")):
        await peer.request()
        peer.answer(body)
    assert (await first, await second) == (b"one", b"other")

    third = _calling(client)
    await one.request()
    one.answer(b"again")

    assert await third == b"again"
    assert client.opened == 2
    client.close()


async def test_a_connection_idle_for_five_seconds_is_closed_when_the_next_call_comes(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert http_client.KEPT_SECONDS == 5.0
    monkeypatch.setattr(http_client, "KEPT_SECONDS", 0.1)
    client = HttpClient(server.address, None)
    first = _calling(client)
    one = await server.peer()
    await one.request()
    one.answer()
    await first

    # Longer than the client keeps connections: it closes them only at the next call.
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(one.reader.read(1), 0.2)
    second = _calling(client)
    other = await server.peer()
    await one.until_gone()
    await other.request()
    other.answer(b"new")

    assert await second == b"new"
    client.close()


async def test_a_connection_that_the_server_has_closed_is_not_used(server: Server) -> None:
    client = HttpClient(server.address, None)
    first = _calling(client)
    one = await server.peer()
    await one.request()
    one.answer()
    await first
    one.writer.close()
    while not client._connections[0].is_closed:
        await asyncio.sleep(0.01)

    second = _calling(client)
    other = await server.peer()
    await other.request()
    other.answer(b"new")

    assert await second == b"new"
    client.close()


class _Recorder(asyncio.Transport):
    """A transport that keeps all written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        pass


async def test_the_body_is_sent_in_a_later_turn_of_the_event_loop_than_the_head() -> None:
    transport, connection = _Recorder(), Connection()
    connection.connection_made(transport)

    call = asyncio.create_task(connection.call(_HEAD, b"body", _SOON))
    await asyncio.sleep(0)
    assert transport.written == [_HEAD]
    await asyncio.sleep(0)
    assert transport.written == [_HEAD, b"body"]
    call.cancel()


async def test_an_answer_is_put_together_from_pieces(server: Server) -> None:
    client = HttpClient(server.address, None)
    body = bytes(range(256)) * 20_000

    call = _calling(client)
    peer = await server.peer()
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\nContent-")
    await peer.writer.drain()
    peer.writer.write(b"Length: %d\r\n\r\n" % len(body) + body[:7])
    await peer.writer.drain()
    peer.writer.write(body[7:])

    assert await call == body
    client.close()


async def test_a_connection_that_breaks_fails_its_call(server: Server) -> None:
    client = HttpClient(server.address, None)

    call = _calling(client)
    peer = await server.peer()
    await peer.request()
    peer.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    peer.writer.close()

    with pytest.raises(TransportError, match="closed by the server"):
        await call


async def test_silence_ends_a_call_and_slowness_does_not(server: Server) -> None:
    client = HttpClient(server.address, None)
    patience = 0.3

    slow = _calling(client, patience=patience)
    peer = await server.peer()
    await peer.request()
    for piece in (b"HTTP/1.1 200 OK\r\n", b"content-length: 3\r\n\r\n", b"a", b"b", b"c"):
        await asyncio.sleep(patience / 2)
        peer.writer.write(piece)
    assert await slow == b"abc"

    silent = _calling(client, patience=patience)
    with pytest.raises(TransportError, match="silence"):
        await silent
    await peer.request()
    await peer.until_gone()


async def test_nobody_there_is_a_transport_error(server: Server) -> None:
    server.stop()

    with pytest.raises(TransportError, match="no connection"):
        await HttpClient(server.address, None).post(_HEAD, b"", _SOON)


async def test_every_connection_is_a_handshake_with_tls(tmp_path: Path) -> None:
    files = create_server_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server = Server()
    await server.start(context)
    client = HttpClient(server.address, tls_context(str(files.ca_certificate)))

    for _ in range(2):
        call = _calling(client)
        peer = await server.peer()
        await peer.request()
        tls = peer.writer.get_extra_info("ssl_object")
        assert not tls.session_reused
        peer.answer(b"safe")
        assert await call == b"safe"
        client.close()

    server.stop()


def test_only_an_answer_that_says_its_length_is_read() -> None:
    body, keep = parse_head(b"HTTP/1.1 503 Busy\r\nContent-Length: 7\r\nConnection: close")
    assert (body.status, len(body.content), keep) == (503, 7, False)

    with pytest.raises(ValueError, match="no plain length"):
        parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")
    with pytest.raises(ValueError, match="not an answer"):
        parse_head(b"\x00\x00\x12\x04")


def test_the_head_of_a_call_is_what_a_stock_node_sends() -> None:
    key = Key()
    wire = HttpWire("127.0.0.1:8000", "1.42.0", key.public, Tally(), None)
    proof = key.proof()

    head = wire.head(BY_NAME["Fleet", "PullMessages"], b"four", proof).decode()

    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    signature = b64decode(fields.pop("flwr-signature"))
    timestamp = fields.pop("flwr-timestamp").encode()
    assert verify_signature(bytes_to_public_key(key.public), timestamp, signature)
    assert b64decode(fields.pop("flwr-public-key")) == key.public
    assert first == "POST /v1/fleet/pull-messages HTTP/1.1"
    # Captured from `flower-supernode` 1.42.
    assert fields == {
        "host": "127.0.0.1:8000",
        "accept-encoding": "gzip, deflate",
        "connection": "keep-alive",
        "user-agent": "python-httpx/0.28.1",
        "content-type": "application/protobuf",
        "accept": "application/protobuf",
        "content-length": "4",
        "flwr-package-name": "flwr",
        "flwr-package-version": "1.42.0",
        "flwr-component-name": "SuperNode",
    }


async def test_a_node_repeats_what_was_not_served_and_nothing_else(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    key, tally = Key(), Tally()
    wire = HttpWire(server.address, "1.42.0", key.public, tally, None)
    calls = FleetCalls(wire, key, tally)
    request = fleet.PullMessagesRequest()

    call = asyncio.create_task(calls.call("PullMessages", request))
    peer = await server.peer()
    await peer.request()
    peer.answer(b"", "503 Service Unavailable")
    await peer.request()
    peer.answer()
    assert await call == fleet.PullMessagesResponse()
    assert (tally.retries, tally.connections) == (1, 1)

    call = asyncio.create_task(calls.call("PullMessages", request))
    await peer.request()
    peer.answer(b'{"detail": "no"}', "404 Not Found")
    with pytest.raises(Refused, match="PullMessages: 404"):
        await call
    await calls.close()


async def test_a_heartbeat_that_is_not_answered_in_time_is_late(server: Server) -> None:
    wire = HttpWire(server.address, "1.42.0", b"key", Tally(), None)

    with pytest.raises(Late):
        await wire.send(BY_NAME["Fleet", "SendNodeHeartbeat"], b"", Proof("", b""), 0.1)
