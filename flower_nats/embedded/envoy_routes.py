"""How Envoy treats each call: which gateways it goes to, how long it may take, what is tried again.

Flower's APIs come over two wires, and each port takes both. The HTTP port serves all APIs. A gRPC port
serves its own API alone, over HTTP too: it may be open to other people than those of other APIs.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flower_nats.model.doors import not_for_others, wrong_port
from flower_nats.model.errors import too_long
from flower_nats.wire.methods import (
    ARTIFACTS_PATH,
    BY_NAME,
    CONTROL,
    FLEET,
    RUNTIME,
    SHORT_REQUEST,
    Method,
)

Json = dict[str, Any]

LUA = "lua"
"""The name of the filter that holds an answer until it is whole."""

LOG_RELAY, HTTP_LOG_RELAY = "log-relay", "http-log-relay"
"""The clusters of the log relay: what it serves over gRPC, and over HTTP."""

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_LUA_PER_ROUTE = f"{_EXTENSIONS}.filters.http.lua.v3.LuaPerRoute"
_PREVIOUS_HOSTS = "envoy.retry_host_predicates.previous_hosts"
_PREVIOUS_HOSTS_TYPE = f"{_EXTENSIONS}.retry.host.previous_hosts.v3.PreviousHostsPredicate"

_APIS = {"serverappio": RUNTIME, "fleet": FLEET, "control": CONTROL}
"""The methods of each API, by the name of its gRPC port."""

_GRPC_HEALTH_CHECK = "/grpc.health.v1.Health/Check"

_HTTP_HEALTH_CHECK = "/health"

_STREAM_LOGS = BY_NAME[("Control", "StreamLogs")]

_TRIES_PER_SECOND = 4
"""How often a call is tried anew where there is no gateway, with the pauses of `_route`."""


@dataclass(frozen=True)
class _Kind:
    """Calls that are treated alike. Times are in seconds."""

    matches: Sequence[Json]
    """What Envoy knows them by; the first that fits counts."""

    cluster: str
    """What serves them."""

    answer_within: float
    """After this time a gateway counts as hung and another one is asked; 0 for never."""

    try_for: float
    """How long a gateway is looked for."""

    in_all: float
    """How long all of it may take; 0 for ever, which is for streams."""

    silence: float = 0
    """How long nothing of the call may come or go; 0 for ever."""

    hedged: bool = False
    """Whether a gateway that has not answered in time may still do so while others are asked."""


def routes(port: str, clusters: Collection[str], kept: Collection[str] = ()) -> list[Json]:
    """Return the routes of a port, by its name, to those of the clusters that there are.

    Calls of the APIs that are `kept`, by the names of their ports, are refused.
    """
    kinds = _kept_from_others(kept, clusters) if kept else _kinds(port, clusters)
    found = list(_too_long(api for api in ([port] if port in _APIS else _APIS) if api not in kept))
    found += [_route(kind, match) for kind in kinds for match in kind.matches]
    found += [refusal for api in kept for refusal in _refusals(api)]
    return [*found, _wrong_port(port)] if port in _APIS else found


def _kinds(port: str, clusters: Collection[str]) -> Iterator[_Kind]:
    """Sort what comes to a port; the first kind that fits a call counts."""
    if port == "health":
        yield _Kind([{"path": _GRPC_HEALTH_CHECK}], port, 2, 2, 4)
    elif port == "logs":
        yield _stream(_grpc([_STREAM_LOGS]), port)
    elif port == "http":
        for api in _APIS:
            if api in clusters:
                yield from _over_grpc(api, clusters)
        yield from _over_http([*_APIS], "/", clusters)
    else:
        yield from _over_grpc(port, clusters)
        if "http" in clusters:
            yield from _over_http([port], _http_prefix(port), clusters)


def _kept_from_others(kept: Collection[str], clusters: Collection[str]) -> Iterator[_Kind]:
    """Sort what comes to the HTTP port from where some APIs are kept from; nothing else passes.

    A gateway reads a path that is written with %XX, which would pass a rule for what does not.
    """
    for api in (one for one in _APIS if one not in kept):
        if api in clusters:
            yield from _over_grpc(api, clusters)
        yield from _over_http([api], _http_prefix(api), clusters)


def _over_grpc(api: str, clusters: Collection[str]) -> Iterator[_Kind]:
    methods = _APIS[api]
    if LOG_RELAY in clusters and _STREAM_LOGS in methods:
        yield _stream(_grpc([_STREAM_LOGS]), LOG_RELAY)
    yield _stream(_grpc(one for one in methods if one.streams), api)
    # What gateways hold: up to 50 s, and up to 20 s more while the broker is away.
    yield _Kind(_grpc(one for one in methods if one.held), api, 75, 80, 155, silence=300)
    # What stock tries once must find a gateway in the end.
    yield _Kind(_grpc(one for one in methods if one.tried_once), api, 60, 600, 660)
    yield _Kind([{"prefix": service} for service in _services(api)], api, 25, 30, 55, silence=300)


def _over_http(apis: Iterable[str], prefix: str, clusters: Collection[str]) -> Iterator[_Kind]:
    methods = [one for api in apis for one in _APIS[api]]
    if HTTP_LOG_RELAY in clusters and _STREAM_LOGS in methods:
        yield _stream([{"path": _STREAM_LOGS.http_path}], HTTP_LOG_RELAY)
    yield _stream([{"path": one.http_path} for one in methods if one.streams], "http")
    if _STREAM_LOGS in methods:
        # A download takes as long as its reader.
        yield _stream([{"path": ARTIFACTS_PATH}], "http")
    yield _Kind([{"path": _HTTP_HEALTH_CHECK}], "http", 2, 2, 4)
    # The process that says farewell ends within seconds, and no connection tells that a gateway hangs.
    farewells = [one for one in methods if one.farewell or one.tried_once]
    matches = [{"path": one.http_path} for one in farewells]
    yield _Kind(matches, "http", 1.5, 23, 28.5, silence=300, hedged=True)
    # Clients give up after 30 s without an answer. Gateways hold calls for 20 s. Envoy keeps to the
    # whole time only if it had a gateway at first; else, to the number of tries that `try_for` gives.
    yield _Kind([{"prefix": prefix}], "http", 24, 23, 28.5, silence=300)


def _stream(matches: Sequence[Json], cluster: str) -> _Kind:
    return _Kind(matches, cluster, 0, 20, 0)


def _grpc(methods: Iterable[Method]) -> list[Json]:
    return [{"path": path} for one in methods for path in one.grpc_paths]


def _route(kind: _Kind, match: Json) -> Json:
    retries: Json = {
        # No connection, or an end of it, or of the time, before anything of an answer came.
        "retry_on": "connect-failure,refused-stream,reset",
        "num_retries": int(kind.try_for * _TRIES_PER_SECOND),
        "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
        "retry_host_predicate": [
            {"name": _PREVIOUS_HOSTS, "typed_config": {"@type": _PREVIOUS_HOSTS_TYPE}}
        ],
        "host_selection_retry_max_attempts": 5,
    }
    if kind.answer_within:
        retries["per_try_timeout"] = seconds(kind.answer_within)
    action: Json = {
        "cluster": kind.cluster,
        "timeout": seconds(kind.in_all),
        "retry_policy": retries,
    }
    if kind.hedged:
        action["hedge_policy"] = {"hedge_on_per_try_timeout": True}
    if kind.silence:
        action["idle_timeout"] = seconds(kind.silence)
    if kind.in_all:
        return {"match": match, "route": action}
    as_it_comes = {LUA: {"@type": _LUA_PER_ROUTE, "disabled": True}}
    return {"match": match, "route": action, "typed_per_filter_config": as_it_comes}


def _refusals(api: str) -> Iterator[Json]:
    """Give the answers to calls of an API that is not for the machine that they come from."""
    refusal = not_for_others(_APIS[api][0].api)
    text, more = refusal.spec.message, refusal.public_details
    over_http, over_grpc = (
        {"detail": text, "extra": more},
        {"public_message": text, "public_details": more},
    )
    said = {"code": int(refusal.code), **over_http, **over_grpc}
    body = {"inline_string": json.dumps(said)}
    # Of the status that gateways give over HTTP gRPC makes UNKNOWN, of this one PERMISSION_DENIED.
    statuses = {**dict.fromkeys(_services(api), 403), _http_prefix(api): refusal.spec.http_status}
    for prefix, status in statuses.items():
        yield {"match": {"prefix": prefix}, "direct_response": {"status": status, "body": body}}


def _too_long(apis: Iterable[str]) -> Iterator[Json]:
    """Give the answers to calls over HTTP that say that they are longer than their method takes.

    A gateway refuses them, too, but hangs up while the balancer still sends, and to the balancer that is
    a fault.
    """
    for api in apis:
        others = [one for one in _APIS[api] if one.longest_request != SHORT_REQUEST]
        for one in others:
            yield _too_long_for(one.longest_request, {"path": one.http_path})
        not_others = [
            {"name": ":path", "string_match": {"exact": one.http_path}, "invert_match": True}
            for one in others
        ]
        yield _too_long_for(SHORT_REQUEST, {"prefix": _http_prefix(api)}, not_others)


def _too_long_for(longest: int, match: Json, more: Sequence[Json] = ()) -> Json:
    refusal = too_long(longest)
    length = {"name": "content-length", "range_match": {"start": longest + 1, "end": 2**62}}
    body = json.dumps({"detail": f"{refusal.spec.message} {refusal.public_details}"})
    return {
        "match": {**match, "headers": [length, *more]},
        "direct_response": {"status": refusal.spec.http_status, "body": {"inline_string": body}},
    }


def _services(api: str) -> Iterable[str]:
    """Return what the gRPC paths of an API begin with."""
    return [path[: path.rindex("/") + 1] for path in _APIS[api][0].grpc_paths]


def _http_prefix(api: str) -> str:
    """Return what the HTTP paths of an API begin with."""
    first = _APIS[api][0].http_path
    return first[: first.rindex("/") + 1]


def _wrong_port(port: str) -> Json:
    """Return the answer to clients of another API, which `flwr` prints and gRPC calls UNIMPLEMENTED."""
    body = {"inline_string": json.dumps({"detail": wrong_port(_APIS[port][0].api)})}
    return {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": body}}


def seconds(number: float) -> str:
    """Return a time as Envoy reads it."""
    return f"{number:g}s"
