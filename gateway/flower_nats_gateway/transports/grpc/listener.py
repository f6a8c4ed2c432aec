"""Listening sockets: gRPC servers of one gateway, with or without TLS."""

import resource
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc

from flower_nats.health import CannotListen
from flower_nats.settings import TlsFiles
from flower_nats.tls import renewable
from flower_nats.wire.methods import LONGEST_MESSAGE
from flower_nats_gateway.api.service import Service
from flower_nats_gateway.calls.peers import Origins
from flower_nats_gateway.transports.grpc.edge import ServiceHandler
from flower_nats_gateway.transports.grpc.meter import Meter

_LONGEST_HEALTH_BODY = 64 * 1024

CONNECTIONS = 16_384
"""Connections to one port at once."""

_STREAMS = 256
"""Calls on one connection at once."""

_ANY_NUMBER = 2**31 - 1

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", 2**31 - 1),
    # Pings keep a held call's connection in the tables of NAT routers. Some routers drop
    # connections that were quiet for 15 s, which is less than a SuperNode's heartbeat interval.
    # Pings also find peers that vanished silently, within half a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 0),
    # Balancers ping to find gateways that hang. By default, gRPC disconnects clients that ping
    # often.
    ("grpc.http2.max_ping_strikes", 0),
    # Otherwise a fast line makes gRPC buffer megabytes of each request before we ask for it.
    ("grpc.http2.bdp_probe", 0),
    # Replicas on one host may share a port.
    ("grpc.so_reuseport", 1),
    # Calls wait in gRPC until they are taken. By default, gRPC answers some of them with CANCELLED
    # from the 1,001st on, and all that have waited for 30 s; stock clients end after that. Here
    # every call is taken, and `Admission` answers UNAVAILABLE if there are too many.
    ("grpc.server.max_pending_requests", _ANY_NUMBER),
    ("grpc.server.max_pending_requests_hard_limit", _ANY_NUMBER),
    ("grpc.server_max_unrequested_time_in_server", 3600),
    # Clients and balancers let further calls wait, or open another connection.
    ("grpc.max_concurrent_streams", _STREAMS),
    ("grpc.max_allowed_incoming_connections", CONNECTIONS),
]


def allow_many_connections() -> None:
    """Raise this process's limit of open files to what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True)
class Listener:
    """A gRPC server, and the port it listens on."""

    server: grpc.aio.Server
    port: int


async def listen(
    address: str,
    services: Sequence[Service],
    health_servicer: health.aio.HealthServicer,
    tls: TlsFiles | None = None,
    *,
    longest_body: int = LONGEST_MESSAGE,
    origins: Origins | None = None,
) -> Listener:
    """Start a gRPC server for these APIs on `host:port`, which also serves health checks.

    It refuses requests that are longer than all its methods allow, or than `longest_body`, before
    it reads them. `origins` knows the clients behind connections of this process. Raises
    `CannotListen`.
    """
    longest = max((one.longest_body for one in services), default=_LONGEST_HEALTH_BODY)
    length = ("grpc.max_receive_message_length", min(longest, longest_body))
    server = grpc.aio.server(options=[*_OPTIONS, length])
    meter, origins = Meter(), origins or Origins()
    handlers = tuple(ServiceHandler(one, meter, origins) for one in services)
    server.add_generic_rpc_handlers(handlers)
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    try:
        if tls is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, _credentials(tls))
    except RuntimeError as exc:
        raise CannotListen(f"Cannot listen on {address}: {exc}") from exc
    meter.port = port
    await server.start()
    return Listener(server, port)


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that are read from the files at each handshake."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], tls.ca_certificate.read_bytes())

    # gRPC itself would load a certificate with a wrong key, and then refuse handshakes.
    files = renewable(tls, configuration)
    first = files.value

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Return the renewed files, None if gRPC already has them."""
        return files.value if files.renew() else None

    # gRPC's types do not allow None, but its documentation does.
    return grpc.dynamic_ssl_server_credentials(first, cast(Any, fetch), False)
