"""Envoy's configuration, by which no client notices the end of a gateway.

Envoy speaks HTTP/2 and HTTP/1.1 with clients, on every port, and decides for each call. If a
gateway dies during a unary call, and no part of the answer has come, Envoy repeats the call at
another gateway. For that it holds the whole request. It also holds an answer until it is complete,
so that a client never gets half an answer. Instead the client gets UNAVAILABLE, or 503, which stock
clients try again. Gateways recognise a repeated call by its request id.

This module has the ports and the servers behind them; `envoy_routes` sorts the calls.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Any

from flower_nats.embedded.envoy_routes import HTTP_LOG_RELAY, LOG_RELAY, LUA, Json, routes, seconds
from flower_nats.settings import TlsFiles
from flower_nats.wire.request_id import CLIENT_ADDRESS, REQUEST_ID

_TYPES = "type.googleapis.com/envoy"
_EXTENSIONS = f"{_TYPES}.extensions"
_MANAGER = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_LUA_FILTER = f"{_EXTENSIONS}.filters.http.lua.v3.Lua"
_ROUTER = f"{_EXTENSIONS}.filters.http.router.v3.Router"
_DNS = f"{_EXTENSIONS}.clusters.dns.v3.DnsCluster"
_DOWNSTREAM_TLS = f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"
_SECRET = f"{_EXTENSIONS}.transport_sockets.tls.v3.Secret"
_UPSTREAM_TLS = f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"
_HEAP = f"{_EXTENSIONS}.resource_monitors.fixed_heap.v3.FixedHeapConfig"
_CONNECTIONS = (
    f"{_EXTENSIONS}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
)
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_REQUEST_BYTES = 64 * 1024 * 1024
"""Bytes: a call with a longer request is passed on too, but cannot be repeated."""

_ANSWER_BYTES = 2**31 - 1
"""Bytes: no message of Flower is longer."""

_CERTIFICATE = "certificate"
"""The name of a certificate in its file."""

HEAP = 4 * 1024**3
"""Bytes of memory, beyond which Envoy takes no new calls. It holds whole answers: one model for
each slow node."""

_CLIENT_CONNECTIONS = 16_384
"""Connections of clients at once, on all ports."""

_STREAMS = 256
"""Calls on one connection of a client. Further calls wait there, or use another connection."""

_IDLE = 90.0
"""Seconds for which a connection without a call is kept: longer than clients over HTTP keep it (5
s). Without this limit, a stranger could hold all connections and send nothing."""

_MANY = 1_000_000

_NOBODY = "127.0.0.1:1"
"""An address that takes no connections. Envoy looks for a gateway only while there is an address to
try, and a name has no address once its last container has ended."""

_WAIT_FOR_THE_WHOLE = "function envoy_on_response(answer) answer:body() end"
"""Lua: passes on an answer's headers only when the whole answer has come."""

_NO_ANSWER = (
    "No gateway of this runtime has answered. Remedy: check that the gateways run and are ready."
)
"""The text that `flwr` prints if no gateway answers."""

_HEALTH = {"path": "/health", "host": "gateway"}

_OVER_HTTP_1 = ("http", HTTP_LOG_RELAY)
"""The clusters whose servers speak HTTP/1.1."""


@dataclass(frozen=True)
class Api:
    """One port: where clients find it, and the gateways that serve what comes to it."""

    name: str
    """http (all APIs), fleet, serverappio, control (one API each), health (the gRPC health
    protocol), or logs (for the `log_relay`)."""

    listen: str
    """`host:port` for clients."""

    gateways: Sequence[str]
    """`host:port` of this API at each gateway, or a name for several gateways; any API for
    health."""

    tls: TlsFiles | None
    """Certificates for TLS with clients; None to serve without TLS."""

    gateways_ca: Path | None = None
    """CA of the gateways' certificate, which is for the name `gateway`; None if they use no TLS."""

    log_relay: str | None = None
    """`host:port` of the relay that serves StreamLogs in place of the gateways, and asks them
    itself. It speaks the wire of this port."""

    loopback: str = ""
    """`host:port` of this machine alone that serves the same without TLS; empty: not at all."""

    kept: Collection[str] = ()
    """APIs of the HTTP port, by the names of their ports, that are served only on connections to a
    loopback address."""

    def with_log_relay(self, relay: str, gateways: str) -> list[Api]:
        """Return this Control API with a relay for its log streams, and the relay's own API.

        The relay listens at `relay`, and finds the gateways at `gateways`.
        """
        inner = Api("logs", gateways, self.gateways, None, self.gateways_ca)
        return [replace(self, log_relay=relay), inner]


def certificate_files(apis: Sequence[Api], directory: Path) -> dict[TlsFiles, Path]:
    """Return Envoy's file in `directory` for each certificate of these APIs.

    Each file holds a `certificate_resource`. Envoy reads it again when the file is replaced.
    """
    found = dict.fromkeys(api.tls for api in apis if api.tls is not None)
    return {tls: directory / f"certificate-{number}.json" for number, tls in enumerate(found, 1)}


def certificate_resource(chain: Json, key: Json, **more: Any) -> Json:
    """Return the content of such a file: certificate and key, each as Envoy's `DataSource`."""
    pair = {"certificate_chain": chain, "private_key": key, **more}
    return {"resources": [{"@type": _SECRET, "name": _CERTIFICATE, "tls_certificate": pair}]}


def envoy_config(apis: Sequence[Api], directory: Path, heap: int = HEAP) -> Json:
    """Return the configuration of an Envoy that serves these APIs.

    Envoy finds certificates in `directory`, in the `certificate_files`. Near `heap` bytes of memory
    it takes no further calls.
    """
    certificates = certificate_files(apis, directory)
    clusters = [
        *(_cluster(api.name, api.gateways, api.gateways_ca) for api in apis),
        *(_cluster(_relay_of(api), [api.log_relay]) for api in apis if api.log_relay),
    ]
    names = {str(one["name"]) for one in clusters}
    listeners = [
        _listener(api.name, api, names, certificates[api.tls] if api.tls else None) for api in apis
    ]
    listeners += [
        _listener(f"{api.name}-loopback", replace(api, listen=api.loopback), names, None)
        for api in apis
        if api.loopback
    ]
    return {
        # Without a node name, Envoy reads no files of certificates.
        "node": {"id": "balancer", "cluster": "flower-nats"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": _overload_manager(heap),
    }


def _overload_manager(heap: int) -> Json:
    """Return the limits that keep Envoy's memory from running out.

    Beyond a limit, Envoy answers calls with 503, which stock clients try again. It closes
    connections that are too many.
    """
    by_heap = "envoy.resource_monitors.fixed_heap"
    by_connections = "envoy.resource_monitors.global_downstream_max_connections"
    actions = {
        "envoy.overload_actions.shrink_heap": 0.8,
        "envoy.overload_actions.disable_http_keepalive": 0.9,
        "envoy.overload_actions.stop_accepting_requests": 0.95,
    }
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            _typed(by_heap, _HEAP, max_heap_size_bytes=heap),
            _typed(
                by_connections, _CONNECTIONS, max_active_downstream_connections=_CLIENT_CONNECTIONS
            ),
        ],
        "actions": [
            {"name": name, "triggers": [{"name": by_heap, "threshold": {"value": value}}]}
            for name, value in actions.items()
        ],
    }


def _relay_of(api: Api) -> str:
    return HTTP_LOG_RELAY if api.name == "http" else LOG_RELAY


def _listener(name: str, api: Api, clusters: Collection[str], certificate: Path | None) -> Json:
    return {
        "name": name,
        "address": _address(api.listen),
        **_also_over_ipv4(api.listen),
        "per_connection_buffer_limit_bytes": _ANSWER_BYTES,
        "socket_options": _keep_alive(),
        "filter_chains": _chains(api, clusters, certificate),
    }


def _also_over_ipv4(address: str) -> Json:
    """Return the options by which `[::]` includes all IPv4 addresses too, as at gateways.

    IPv4 clients must not appear with IPv4-mapped IPv6 addresses, because rules for APIs of this
    machine compare addresses.
    """
    host, _, port = address.rpartition(":")
    if ip_address(host.strip("[]")) != IPv6Address("::"):
        return {}
    return {"additional_addresses": [{"address": _address(f"0.0.0.0:{port}")}]}


def _chains(api: Api, clusters: Collection[str], certificate: Path | None) -> list[Json]:
    """Return how connections are served: all alike, or by their destination address."""
    everything = _chain(replace(api, kept=()), clusters, certificate)
    if not api.kept:
        return [everything]
    host = ip_address(api.listen.rpartition(":")[0].strip("[]"))
    if host.is_loopback:
        return [everything]
    to_others = _chain(api, clusters, certificate)
    if not host.is_unspecified:
        return [to_others]
    ranges = [{"address_prefix": "127.0.0.0", "prefix_len": 8}]
    if host.version == 6:
        ranges.append({"address_prefix": "::1", "prefix_len": 128})
    return [{**everything, "filter_chain_match": {"prefix_ranges": ranges}}, to_others]


def _chain(api: Api, clusters: Collection[str], certificate: Path | None) -> Json:
    manager = _typed("http_connection_manager", _MANAGER, **_manager(api, clusters))
    chain: Json = {"filters": [manager]}
    if certificate is not None:
        chain["transport_socket"] = _typed("tls", _DOWNSTREAM_TLS, **_server_tls(certificate))
        # Longer than clients wait for a handshake. A client whose handshake we end would give up
        # for good.
        chain["transport_socket_connect_timeout"] = "60s"
    return chain


def _keep_alive() -> list[Json]:
    """Return socket options that make the system probe quiet connections (numbers of Linux).

    The probes do for HTTP/1.1, whose held calls are quiet too, what pings do for HTTP/2. The system
    probes every 10 s. A client that leaves six probes unanswered is gone.
    """
    sol_socket, so_keepalive = 1, 9
    ipproto_tcp, tcp_keepidle, tcp_keepintvl, tcp_keepcnt = 6, 4, 5, 6
    options = [
        (sol_socket, so_keepalive, 1),
        (ipproto_tcp, tcp_keepidle, 10),
        (ipproto_tcp, tcp_keepintvl, 10),
        (ipproto_tcp, tcp_keepcnt, 6),
    ]
    return [
        {"level": level, "name": name, "int_value": value, "state": "STATE_PREBIND"}
        for level, name, value in options
    ]


def _manager(api: Api, clusters: Collection[str]) -> Json:
    said = {REQUEST_ID: "%UNIQUE_ID%"}
    # The log relay itself sends the address of its client.
    if api.name != "logs":
        said[CLIENT_ADDRESS] = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    return {
        "stat_prefix": api.name,
        # Calls are held for a minute, and streams are quiet for hours.
        "stream_idle_timeout": "0s",
        # Clients close idle connections earlier, or have an open call.
        "common_http_protocol_options": {"idle_timeout": seconds(_IDLE)},
        # Only an attacker sends half of a head and then waits.
        "request_headers_timeout": "60s",
        "http2_protocol_options": {
            # The log relay makes all its calls over one connection.
            "max_concurrent_streams": _MANY if api.name == "logs" else _STREAMS,
            # How much of an answer, and of a request, is held. The connection has its own limit.
            "initial_stream_window_size": _ANSWER_BYTES,
            # Pings for forgetful NAT routers, because pings of gateways end at Envoy. On a slow
            # line, the answer to a ping waits behind megabytes of a model, so the time-out is as
            # long as TCP's own.
            "connection_keepalive": _pings(10, 900),
        },
        # Addresses that clients claim do not count.
        "use_remote_address": True,
        "skip_xff_append": True,
        "local_reply_config": {"mappers": _own_answers()},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": api.name,
                    "domains": ["*"],
                    "request_body_buffer_limit": _REQUEST_BYTES,
                    # The headers are the same for all attempts at one call, and replace those of
                    # clients.
                    "request_headers_to_add": [_header(*one) for one in said.items()],
                    "routes": routes(api.name, clusters, api.kept),
                }
            ]
        },
        "http_filters": [
            _typed(LUA, _LUA_FILTER, default_source_code={"inline_string": _WAIT_FOR_THE_WHOLE}),
            _typed("router", _ROUTER, suppress_envoy_headers=True),
        ],
    }


def _header(name: str, value: str) -> Json:
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _own_answers() -> list[Json]:
    """Return Envoy's own answer to faults: 503, whatever the fault is.

    Stock clients over HTTP end at 500; those of flwr 1.35 to 1.40 also end at 502.
    """
    is_fault: Json = {
        "status_code_filter": {
            "comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "unused"}}
        }
    }
    not_grpc = {
        "header_filter": {
            "header": {
                "name": "content-type",
                "string_match": {"prefix": "application/grpc"},
                "invert_match": True,
                "treat_missing_header_as_empty": True,
            }
        }
    }
    return [
        {
            "filter": {"and_filter": {"filters": [is_fault, not_grpc]}},
            "status_code": 503,
            "body": {"inline_string": _NO_ANSWER},
            "body_format_override": {"json_format": {"detail": "%LOCAL_REPLY_BODY%"}},
        },
        {"filter": is_fault, "status_code": 503},
    ]


def _cluster(name: str, servers: Sequence[str], authority: Path | None = None) -> Json:
    over_http_1 = name in _OVER_HTTP_1
    cluster: Json = {
        "name": name,
        # A name may stand for several gateways, whose number changes. Gateways of Compose listen on
        # IPv4 only, even if their network has both.
        "cluster_type": _typed(
            "dns", _DNS, dns_refresh_rate="1s", dns_lookup_family="V4_PREFERRED"
        ),
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": {"choice_count": 10},
        # If no gateway is ready, Envoy tries all of them.
        "common_lb_config": {"healthy_panic_threshold": {"value": 1}},
        "circuit_breakers": {
            "thresholds": [
                dict.fromkeys(
                    ("max_connections", "max_pending_requests", "max_requests", "max_retries"),
                    _MANY,
                )
            ]
        },
        "health_checks": [
            {
                # The check uses the port that serves.
                **({"http_health_check": _HEALTH} if over_http_1 else {"grpc_health_check": {}}),
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "timeout": "1s",
                "healthy_threshold": 1,
                "unhealthy_threshold": 1,
            }
        ],
        "typed_extension_protocol_options": {_HTTP: _wire_to(over_http_1=over_http_1)},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": _endpoints(servers)}],
        },
    }
    if authority is not None:
        protocol = "http/1.1" if over_http_1 else "h2"
        cluster["transport_socket"] = _tls_to_gateways(authority, protocol)
    return cluster


def _wire_to(*, over_http_1: bool) -> Json:
    options: Json = {"@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions"}
    if over_http_1:
        return {
            **options,
            # Gateways keep connections longer: a call must not meet the end of its connection.
            "common_http_protocol_options": {"idle_timeout": "50s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    # The pings find a gateway that hangs. Its calls go to another gateway.
    pings = {"connection_keepalive": _pings(2, 5)}
    return {**options, "explicit_http_config": {"http2_protocol_options": pings}}


def _tls_to_gateways(authority: Path, protocol: str) -> Json:
    common = {
        # This also covers the health check, which sends no ALPN by itself.
        "alpn_protocols": [protocol],
        # With older TLS, Envoy takes no certificate with a key on P-384.
        "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
        "validation_context": {
            "trusted_ca": _file(authority),
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "gateway"}}],
        },
    }
    return _typed("tls", _UPSTREAM_TLS, sni="gateway", common_tls_context=common)


def _endpoints(servers: Sequence[str]) -> list[Json]:
    addresses = [*servers] if all(map(_is_fixed, servers)) else [*servers, _NOBODY]
    return [{"endpoint": {"address": _address(address)}} for address in addresses]


def _is_fixed(address: str) -> bool:
    try:
        ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def _address(address: str) -> Json:
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}


def _server_tls(certificate: Path) -> Json:
    source = {"path_config_source": {"path": str(certificate)}, "resource_api_version": "V3"}
    return {
        "common_tls_context": {
            # Envoy's order of preference: clients that can use both, such as browsers and curl, get
            # HTTP/1.1.
            "alpn_protocols": ["http/1.1", "h2"],
            "tls_certificate_sds_secret_configs": [{"name": _CERTIFICATE, "sds_config": source}],
        }
    }


def _pings(every: float, patience: float) -> Json:
    return {"interval": seconds(every), "timeout": seconds(patience)}


def _file(path: Path) -> Json:
    return {"filename": str(path)}


def _typed(name: str, kind: str, **settings: Any) -> Json:
    return {"name": name, "typed_config": {"@type": kind, **settings}}
