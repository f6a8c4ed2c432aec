"""A SuperNode on a slow line: its reply takes longer than a push may pause."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.federation import BOTH, Federation
from tests.e2e.servers import ServerOptions, ServerUnderTest, running_server

# The short form is tests/integration/test_gateway_slow_replies.
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

REPLY_BYTES = 25_000_000
"""The size of one value in a ConfigRecord, which clients do not cut into pieces."""

LINE = 125_000
"""Bytes a second: 1 Mbit/s. The reply takes 200 s; a push without a byte ends after 180 s."""

_PIECE = 16 * 1024


class SlowLine:
    """A line to a server: all connections share `LINE` bytes a second on the way to the server."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sending = threading.Lock()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def serve(self) -> None:
        """Accept connections until `close`."""
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                # For the sender, bytes in the receive buffer are sent: a modem has no 4 MB either.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * _PIECE)
                for way in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._carry, args=way, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, slowly: bool) -> None:
        with suppress(OSError), source, sink:
            while piece := source.recv(_PIECE):
                if slowly:
                    with self._sending:
                        time.sleep(len(piece) / LINE)
                sink.sendall(piece)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Accept no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def slow_lines_to(server: ServerUnderTest) -> Iterator[ServerUnderTest]:
    """Yield the server with the addresses of slow lines to it."""
    lines = {name: SlowLine(getattr(server.addresses, name)) for name in ("http", "fleet")}
    for line in lines.values():
        threading.Thread(target=line.serve, daemon=True).start()
    reached = copy(server)
    reached.addresses = replace(
        server.addresses, **{name: line.address for name, line in lines.items()}
    )
    try:
        yield reached
    finally:
        for line in lines.values():
            line.close()


def test_a_reply_of_25_mb_in_one_value_comes_over_a_line_of_one_megabit(tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "server", ServerOptions()) as server,
        slow_lines_to(server) as slowly,
    ):
        clients = Federation(server, tmp_path / "clients")
        remote = Federation(slowly, tmp_path / "remote")
        try:
            nodes = remote.start_supernodes(
                **{f"node-{number}": version for number, version in enumerate(BOTH)}
            )
            config = f"ballast={REPLY_BYTES} timeout=900.0 nodes={len(nodes)}"
            run_id = clients.run_app("nothing", config)
            clients.wait_for_status(run_id, "finished:completed", timeout=800.0)

            log = clients.log_of(run_id)
            assert "refused" not in log
            assert log.count("answered: how are you") == len(nodes)
        finally:
            remote.close()
            clients.close()
