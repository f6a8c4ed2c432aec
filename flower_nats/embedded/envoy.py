"""What Envoy is told, so that no client notices the end of a gateway.

It speaks HTTP/2 on both sides and decides per call: a unary call that was on its way to a gateway
that died is made again at another one, as long as nothing of an answer has come. A request is held
in full for that; an answer is held until it is whole, so that half of one never reaches a client: it
reads UNAVAILABLE then, which stock clients try again. Gateways recognise a call that is made again
by its request id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from flower_nats.settings import TlsFiles
from flower_nats.wire.methods import BY_NAME, CONTROL, FLEET, RUNTIME
from flower_nats.wire.request_id import REQUEST_ID

Json = dict[str, Any]

_TYPES = "type.googleapis.com/envoy"
_EXTENSIONS = f"{_TYPES}.extensions"
_MANAGER = f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"
_LUA = "lua"
_LUA_FILTER = f"{_EXTENSIONS}.filters.http.lua.v3.Lua"
_LUA_PER_ROUTE = f"{_EXTENSIONS}.filters.http.lua.v3.LuaPerRoute"
_ROUTER = f"{_EXTENSIONS}.filters.http.router.v3.Router"
_DNS = f"{_EXTENSIONS}.clusters.dns.v3.DnsCluster"
_PREVIOUS_HOSTS = f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"
_DOWNSTREAM_TLS = f"{_EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"
_UPSTREAM_TLS = f"{_EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_REQUEST_BYTES = 64 * 1024 * 1024
"""A call with a longer request is passed on all the same, but cannot be made again."""

_ANSWER_BYTES = 2**31 - 1
"""No gRPC message of Flower's is longer."""

_HELD = frozenset({"PullMessages", "PullObject", "PullPendingTasks"})

_HEALTH_CHECK = "/grpc.health.v1.Health/Check"

_LOG_RELAY = "log-relay"

_MANY = 1_000_000

_TRIES_PER_SECOND = 4
"""How often a call is tried anew where there is no gateway, with the pauses of `_route`."""

_NOBODY = "127.0.0.1:1"
"""Takes no connections. Calls look for a gateway only while there is something to try, and a name
whose last container ended stands for nothing."""

_WAIT_FOR_THE_WHOLE = "function envoy_on_response(answer) answer:body() end"
"""Lua: headers of an answer go on when all of it has come."""


@dataclass(frozen=True)
class Api:
    """One API: where clients find it, and the gateways that serve it."""

    name: str
    """fleet, serverappio, control, health (the gRPC health protocol), or logs (for the `log_relay`)."""

    listen: str
    """`host:port` for clients."""

    gateways: Sequence[str]
    """`host:port` of this API at each gateway, or at all that a name stands for; any API for health."""

    tls: TlsFiles | None
    """Certificates to speak TLS with clients, None to serve them in the clear."""

    gateways_ca: Path | None = None
    """Authority behind the gateways' certificate, which is for `gateway`; None: they speak no TLS."""

    log_relay: str | None = None
    """`host:port` of what serves StreamLogs in the gateways' place, and asks them in its turn."""

    def with_log_relay(self, relay: str, gateways: str) -> list[Api]:
        """Return this Control API with a relay for its log streams, and the API that is for the relay.

        The relay listens at `relay`, and finds the gateways at `gateways`.
        """
        inner = Api("logs", gateways, self.gateways, None, self.gateways_ca)
        return [replace(self, log_relay=relay), inner]


@dataclass(frozen=True)
class _Kind:
    """Calls that are treated alike. Times are in seconds."""

    matches: Sequence[Json]
    """What Envoy knows them by; the first that fits counts."""

    answer_within: float
    """After this time a gateway counts as hung and another one is asked; 0 for never."""

    try_for: float
    """How long a gateway is looked for."""

    streams: bool = False

    served_by: str | None = None
    """The cluster that it goes to, if that is not the API's own."""


def envoy_config(apis: Sequence[Api]) -> Json:
    """Return the configuration of an Envoy that serves these APIs."""
    return {
        "static_resources": {
            "listeners": [_listener(api) for api in apis],
            "clusters": [
                *(_cluster(api.name, api.gateways, api.gateways_ca) for api in apis),
                *(_cluster(_LOG_RELAY, [api.log_relay]) for api in apis if api.log_relay),
            ],
        }
    }


def _listener(api: Api) -> Json:
    chain: Json = {"filters": [_typed("http_connection_manager", _MANAGER, **_manager(api))]}
    if api.tls is not None:
        chain["transport_socket"] = _typed("tls", _DOWNSTREAM_TLS, **_certificates(api.tls))
    return {
        "name": api.name,
        "address": _address(api.listen),
        "per_connection_buffer_limit_bytes": _ANSWER_BYTES,
        "filter_chains": [chain],
    }


def _manager(api: Api) -> Json:
    return {
        "stat_prefix": api.name,
        # Calls are held for a minute, and streams are quiet for hours.
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {
            # How much of an answer is held, and of requests; that has the connection's own limit.
            "initial_stream_window_size": _ANSWER_BYTES,
            # As gateways do, whose pings end here, for forgetful NAT routers. On a slow line a ping's
            # answer waits behind megabytes of a model: patience as long as TCP's own.
            "connection_keepalive": _pings(10, 900),
        },
        # What clients say of themselves does not count.
        "use_remote_address": True,
        "skip_xff_append": True,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": api.name,
                    "domains": ["*"],
                    "request_body_buffer_limit": _REQUEST_BYTES,
                    # The same for all attempts at one call, and never what a client says.
                    "request_headers_to_add": [
                        {
                            "header": {"key": REQUEST_ID, "value": "%UNIQUE_ID%"},
                            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                        }
                    ],
                    # gRPC clients read what has no route as UNIMPLEMENTED.
                    "routes": [
                        _route(api, kind, match) for kind in _kinds(api) for match in kind.matches
                    ],
                }
            ]
        },
        "http_filters": [
            _typed(_LUA, _LUA_FILTER, default_source_code={"inline_string": _WAIT_FOR_THE_WHOLE}),
            _typed("router", _ROUTER, suppress_envoy_headers=True),
        ],
    }


def _kinds(api: Api) -> list[_Kind]:
    """Sort an API's methods."""
    if api.name == "health":
        return [_Kind([{"path": _HEALTH_CHECK}], 2, 2)]
    logs = [{"path": BY_NAME[("Control", "StreamLogs")].path}]
    if api.name == "logs":
        return [_Kind(logs, 0, 20, streams=True)]
    methods = {"fleet": FLEET, "serverappio": RUNTIME, "control": CONTROL}[api.name]
    service, _, _ = methods[0].path.rpartition("/")
    return [
        *([_Kind(logs, 0, 20, streams=True, served_by=_LOG_RELAY)] if api.log_relay else []),
        _Kind([{"path": one.path} for one in methods if one.streams], 0, 20, streams=True),
        # What gateways hold: up to 50 s, and up to 20 s more while the broker is away.
        _Kind([{"path": one.path} for one in methods if one.name in _HELD], 75, 80),
        # Stock ServerApps try this once: it must find a gateway in the end.
        _Kind([{"path": one.path} for one in methods if one.name == "PushTaskOutput"], 60, 600),
        _Kind([{"prefix": f"{service}/"}], 25, 30),
    ]


def _route(api: Api, kind: _Kind, match: Json) -> Json:
    retries: Json = {
        # No connection, or an end of it, or of the time, before anything of an answer came.
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": int(kind.try_for * _TRIES_PER_SECOND),
        "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
        "retry_host_predicate": [_typed("previous_hosts", _PREVIOUS_HOSTS)],
        "host_selection_retry_max_attempts": 5,
    }
    if kind.answer_within:
        retries["per_try_timeout"] = _seconds(kind.answer_within)
    route: Json = {
        "match": match,
        "route": {
            "cluster": kind.served_by or api.name,
            # The last gateway that is found may still take its time.
            "timeout": "0s" if kind.streams else _seconds(kind.try_for + kind.answer_within),
            "retry_policy": retries,
        },
    }
    if kind.streams:
        route["typed_per_filter_config"] = {_LUA: {"@type": _LUA_PER_ROUTE, "disabled": True}}
    return route


def _cluster(name: str, servers: Sequence[str], authority: Path | None = None) -> Json:
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
        # The gRPC health protocol on the very port that serves.
        "health_checks": [
            {
                "grpc_health_check": {},
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "timeout": "1s",
                "healthy_threshold": 1,
                "unhealthy_threshold": 1,
            }
        ],
        "typed_extension_protocol_options": {
            _HTTP: {
                "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                # A gateway that hangs loses the calls that it holds to another one.
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": _pings(2, 5)}
                },
            }
        },
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": _endpoints(servers)}],
        },
    }
    if authority is not None:
        cluster["transport_socket"] = _tls_to_gateways(authority)
    return cluster


def _tls_to_gateways(authority: Path) -> Json:
    common = {
        # In the health check too, which does not say so by itself.
        "alpn_protocols": ["h2"],
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


def _certificates(tls: TlsFiles) -> Json:
    pair = {"certificate_chain": _file(tls.certificate), "private_key": _file(tls.key)}
    return {"common_tls_context": {"alpn_protocols": ["h2"], "tls_certificates": [pair]}}


def _pings(every: float, patience: float) -> Json:
    return {"interval": _seconds(every), "timeout": _seconds(patience)}


def _seconds(number: float) -> str:
    return f"{number:g}s"


def _file(path: Path) -> Json:
    return {"filename": str(path)}


def _typed(name: str, kind: str, **settings: Any) -> Json:
    return {"name": name, "typed_config": {"@type": kind, **settings}}
