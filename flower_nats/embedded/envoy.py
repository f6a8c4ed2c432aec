"""What Envoy is told, so that no client notices the end of a gateway.

It speaks HTTP/2 and HTTP/1.1 with clients, on every port, and decides per call: a unary call that was
on its way to a gateway that died is made again at another one, as long as nothing of an answer has
come. A request is held in full for that; an answer is held until it is whole, so that half of one
never reaches a client: the client reads UNAVAILABLE, or 503, which stock clients try again. Gateways
recognise a call that is made again by its request id.

Here are the ports and what is behind them; `envoy_routes` sorts the calls.
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
"""A call with a longer request is passed on all the same, but cannot be made again."""

_ANSWER_BYTES = 2**31 - 1
"""No message of Flower's is longer."""

_CERTIFICATE = "certificate"
"""What a certificate is called in the file that holds it."""

HEAP = 4 * 1024**3
"""Bytes of memory beyond which nothing new is taken. Whole answers are held: a model for each node that
is slow to take it."""

_CLIENT_CONNECTIONS = 16_384
"""Connections of clients at once, on all ports."""

_STREAMS = 256
"""Calls on one connection of a client: others wait there, or take a connection more."""

_IDLE = 90.0
"""Seconds for which a connection without a call is kept: longer than clients over HTTP do (5 s). Without
it, a stranger could take all connections and say nothing."""

_MANY = 1_000_000

_NOBODY = "127.0.0.1:1"
"""Takes no connections. Calls look for a gateway only while there is something to try, and a name
whose last container ended stands for nothing."""

_WAIT_FOR_THE_WHOLE = "function envoy_on_response(answer) answer:body() end"
"""Lua: headers of an answer go on when all of it has come."""

_NO_ANSWER = (
    "No gateway of this runtime has answered. Remedy: check that the gateways run and are ready."
)
"""What `flwr` prints then."""

_HEALTH = {"path": "/health", "host": "gateway"}

_OVER_HTTP_1 = ("http", HTTP_LOG_RELAY)
"""The clusters whose servers speak HTTP/1.1."""


@dataclass(frozen=True)
class Api:
    """One port: where clients find it, and the gateways that serve what comes to it."""

    name: str
    """http (all APIs), fleet, serverappio, control (one API each), health (the gRPC health protocol),
    or logs (for the `log_relay`)."""

    listen: str
    """`host:port` for clients."""

    gateways: Sequence[str]
    """`host:port` of this API at each gateway, or at all that a name stands for; any API for health."""

    tls: TlsFiles | None
    """Certificates to speak TLS with clients, None to serve them in the clear."""

    gateways_ca: Path | None = None
    """Authority behind the gateways' certificate, which is for `gateway`; None: they speak no TLS."""

    log_relay: str | None = None
    """`host:port` of what serves StreamLogs in the gateways' place, and asks them in its turn. It
    speaks the wire of this port."""

    loopback: str = ""
    """`host:port` of this machine alone that serves the same without TLS; empty: not at all."""

    kept: Collection[str] = ()
    """Of the APIs of the HTTP port, by the names of their ports: those for connections to a loopback
    address alone."""

    def with_log_relay(self, relay: str, gateways: str) -> list[Api]:
        """Return this Control API with a relay for its log streams, and the API that is for the relay.

        The relay listens at `relay`, and finds the gateways at `gateways`.
        """
        inner = Api("logs", gateways, self.gateways, None, self.gateways_ca)
        return [replace(self, log_relay=relay), inner]


def certificate_files(apis: Sequence[Api], directory: Path) -> dict[TlsFiles, Path]:
    """Return Envoy's file in `directory` for each certificate of these APIs.

    Each holds a `certificate_resource`, which Envoy reads again when another file takes its place.
    """
    found = dict.fromkeys(api.tls for api in apis if api.tls is not None)
    return {tls: directory / f"certificate-{number}.json" for number, tls in enumerate(found, 1)}


def certificate_resource(chain: Json, key: Json, **more: Any) -> Json:
    """Return what such a file holds: a certificate and its key, each as Envoy's `DataSource`."""
    pair = {"certificate_chain": chain, "private_key": key, **more}
    return {"resources": [{"@type": _SECRET, "name": _CERTIFICATE, "tls_certificate": pair}]}


def envoy_config(apis: Sequence[Api], directory: Path, heap: int = HEAP) -> Json:
    """Return the configuration of an Envoy that serves these APIs.

    It finds certificates in `directory`, in the `certificate_files`. Near `heap` bytes of memory it
    takes no further calls.
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
        # Envoy reads no files of certificates without.
        "node": {"id": "balancer", "cluster": "flower-nats"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
        "overload_manager": _overload_manager(heap),
    }


def _overload_manager(heap: int) -> Json:
    """Return what Envoy does before its memory runs out.

    What comes then is answered with 503, which stock clients try again. Connections that are too many
    are closed.
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
    """Return what makes all addresses of IPv6 all addresses of IPv4 as well, as at gateways.

    Not as IPv6 addresses that stand for such of IPv4: what is kept for this machine goes by them.
    """
    host, _, port = address.rpartition(":")
    if ip_address(host.strip("[]")) != IPv6Address("::"):
        return {}
    return {"additional_addresses": [{"address": _address(f"0.0.0.0:{port}")}]}


def _chains(api: Api, clusters: Collection[str], certificate: Path | None) -> list[Json]:
    """Return how connections are served: all alike, or by the address that they were made to."""
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
        # Longer than clients wait for a handshake: one that we end would end them for good.
        chain["transport_socket_connect_timeout"] = "60s"
    return chain


def _keep_alive() -> list[Json]:
    """Return what has the system send empty packets on quiet connections (numbers of Linux).

    They are what HTTP/2 pings are for HTTP/1.1, whose held calls are as quiet: each 10 s, and a
    client that has left six of them unanswered is gone.
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
    # The log relay says it itself of its clients.
    if api.name != "logs":
        said[CLIENT_ADDRESS] = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
    return {
        "stat_prefix": api.name,
        # Calls are held for a minute, and streams are quiet for hours.
        "stream_idle_timeout": "0s",
        # Clients keep theirs for less, or have a call under way.
        "common_http_protocol_options": {"idle_timeout": seconds(_IDLE)},
        # Nobody sends half of a head and then waits, but to keep us busy.
        "request_headers_timeout": "60s",
        "http2_protocol_options": {
            # The log relay makes its calls over one connection.
            "max_concurrent_streams": _MANY if api.name == "logs" else _STREAMS,
            # How much of an answer is held, and of requests; that has the connection's own limit.
            "initial_stream_window_size": _ANSWER_BYTES,
            # As gateways do, whose pings end here, for forgetful NAT routers. On a slow line a ping's
            # answer waits behind megabytes of a model: patience as long as TCP's own.
            "connection_keepalive": _pings(10, 900),
        },
        # What clients say of themselves does not count.
        "use_remote_address": True,
        "skip_xff_append": True,
        "local_reply_config": {"mappers": _own_answers()},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": api.name,
                    "domains": ["*"],
                    "request_body_buffer_limit": _REQUEST_BYTES,
                    # The same for all attempts at one call, and never what a client says.
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
    """Return what Envoy says itself of a fault: 503, whatever the fault is.

    Of stock clients over HTTP, those of flwr 1.35 to 1.40 die of 502, and all die of 500.
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
        # Also one name for any number of gateways, which come and go. Those of Compose listen on IPv4
        # only, even where their network has both.
        "cluster_type": _typed(
            "dns", _DNS, dns_refresh_rate="1s", dns_lookup_family="V4_PREFERRED"
        ),
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "least_request_lb_config": {"choice_count": 10},
        # If none is ready, each may still be the first to be.
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
                # On the very port that serves.
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
            # Gateways keep it longer: a call must not meet the end of its connection.
            "common_http_protocol_options": {"idle_timeout": "50s"},
            "explicit_http_config": {"http_protocol_options": {}},
        }
    # A gateway that hangs loses the calls that it holds to another one.
    pings = {"connection_keepalive": _pings(2, 5)}
    return {**options, "explicit_http_config": {"http2_protocol_options": pings}}


def _tls_to_gateways(authority: Path, protocol: str) -> Json:
    common = {
        # In the health check too, which does not say so by itself.
        "alpn_protocols": [protocol],
        # Below it, Envoy takes no certificate with a key on P-384.
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
            # In the order in which Envoy chooses: a client that can use both, as browsers and curl,
            # gets HTTP/1.1.
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
