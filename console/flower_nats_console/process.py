"""Life of a console: it connects to NATS and serves pages until SIGTERM. It stores nothing."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from flower_nats.broker import subjects
from flower_nats.broker.connection import Connection
from flower_nats.broker.rpc import RpcClient
from flower_nats.health import CannotListen
from flower_nats.logs import get_logger
from flower_nats.model.certificates import names_in
from flower_nats.settings import ConsoleSettings
from flower_nats.stopping import keep_running, stop_at_signals, until
from flower_nats_console.app import Console, console_app
from flower_nats_console.errors import ErrorPages
from flower_nats_console.events import EventPages
from flower_nats_console.live import Live
from flower_nats_console.logs import LogPages
from flower_nats_console.metrics import MetricPages
from flower_nats_console.nodes import NodePages
from flower_nats_console.runs import RunPages
from flower_nats_console.superlinks import Superlinks
from flower_nats_console.webhooks import WebhookPages

log = get_logger(__name__)

_GRACE = 3
"""Seconds for which pages that are being served may go on at the end."""

_LOOK_EVERY = 10.0
"""Seconds between two looks whether there is a new certificate."""

_KEEP_ALIVE = 60
"""Seconds for which a connection without a request is kept: much longer than the time from one look of a
page to the next, else each look would race with the end of the connection that it is made on."""

_CONNECTIONS = 1_024
"""Connections at once: each is a browser's, which has up to six."""

_PAGES = (MetricPages, NodePages, EventPages, WebhookPages, LogPages, ErrorPages)
"""Beside the overview and the runs."""

_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


async def serve(settings: ConsoleSettings, stop: asyncio.Event | None = None) -> None:
    """Run one console until `stop`, or without one until SIGTERM or SIGINT.

    Raises `Unavailable` if no NATS server answers, and `CannotListen` if the address is taken.
    """
    stop = stop or stop_at_signals()
    connecting = Connection.connect(
        settings.nats, "console", ca_certificate=settings.nats_ca_certificate
    )
    connection = await until(stop, connecting)
    if connection is None:
        return
    try:
        await _serve(settings, connection, stop)
    finally:
        await connection.close()


async def _serve(settings: ConsoleSettings, connection: Connection, stop: asyncio.Event) -> None:
    rpc, live = RpcClient(connection), Live(connection)
    await _follow_superlinks(connection, rpc)
    await live.start()
    superlinks = Superlinks(rpc)
    console = Console(superlinks, live, settings.certificate)
    names = names_in(settings.certificate) if settings.certificate else []
    more = [route for pages in _PAGES for route in pages(superlinks).routes()]
    app = console_app(
        console,
        RunPages(superlinks),
        more,
        [*_LOOPBACK_NAMES, *names],
        only_accounts=settings.only_accounts,
    )
    config = uvicorn.Config(
        app,
        ssl_certfile=settings.certificate,
        ssl_keyfile=settings.key,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    config.load()
    server = _Server(config)
    listening = _listen(settings.address)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="pages")
    log.info("console_ready", address="{}:{}".format(*listening.getsockname()[:2]))

    async def pages() -> None:
        await asyncio.shield(serving)

    try:
        await keep_running(
            stop,
            {
                "pages": pages(),
                "certificate": _follow_certificate(settings, config.ssl),
                "connection": connection.until_ended(),
            },
        )
    finally:
        live.end()
        server.should_exit = True
        await asyncio.wait({serving}, timeout=_GRACE + 1)
        listening.close()
        log.info("console_stopped")


async def _follow_certificate(settings: ConsoleSettings, context: ssl.SSLContext | None) -> None:
    """Show a new certificate once it is in the place of the old one, until cancelled."""
    shown = _written_at(settings)
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        if context is None or settings.certificate is None or _written_at(settings) == shown:
            continue
        try:
            # Of one that is being written, only a half may be there.
            context.load_cert_chain(settings.certificate, settings.key)
        except (OSError, ssl.SSLError) as exc:
            log.warning("certificate_not_read", reason=str(exc))
        else:
            shown = _written_at(settings)
            log.info("certificate_read", certificate=str(settings.certificate))


def _written_at(settings: ConsoleSettings) -> list[int]:
    files = [one for one in (settings.certificate, settings.key) if one is not None]
    try:
        return [one.stat().st_mtime_ns for one in files]
    except OSError:
        return []


class _Server(uvicorn.Server):
    """One that leaves signals to us."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def _follow_superlinks(connection: Connection, rpc: RpcClient) -> None:
    """Hear which superlinks are awake: one that is stopped is then asked no more."""

    async def on_sign(message: Any) -> None:
        superlink = message.subject.removeprefix(subjects.EVENT_SUPERLINK)
        rpc.note_superlink(superlink, message.data)

    await connection.subscribe(f"{subjects.EVENT_SUPERLINK}*", on_sign)


def _listen(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, int(port)), family=family, backlog=128)
    except OSError as exc:
        raise CannotListen(f"Cannot listen on {address}: {exc}") from exc
