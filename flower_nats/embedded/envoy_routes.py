"""How Envoy treats each call: to which gateways it goes, how long it may take, when it is repeated.

Flower's APIs come over two wires, and each port takes both. The HTTP port serves all APIs. A gRPC
port serves only its own API, over HTTP too, because it may be open to other people than the ports
of other APIs.
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
"""The name of the filter that holds an answer until it is complete."""

LOG_RELAY, HTTP_LOG_RELAY = "log-relay", "http-log-relay"
"""The clusters of the log relay, over gRPC and over HTTP."""

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
"""Tries per second if no gateway takes the call, with the pauses of `_route`."""


@dataclass(frozen=True)
class _Kind:
    """Calls that are treated alike. Times are in seconds."""

    matches: Sequence[Json]
    """How Envoy recognises these calls; the first match counts."""

    cluster: str
    """The servers of these calls."""

    answer_within: float
    """Time without an answer after which Envoy asks another gateway; 0 for never."""

    try_for: float
    """How long Envoy looks for a gateway."""

    in_all: float
    """How long the whole call may take; 0 for ever, for streams."""

    silence: float = 0
    """How long a call may be without traffic; 0 for ever."""

    hedged: bool = False
    """Whether a late gateway may still answer while others are asked."""


def routes(port: str, clusters: Collection[str], kept: Collection[str] = ()) -> list[Json]:
    """Return the routes of a port, by its name, to the clusters that exist.

    Calls of APIs in `kept`, by the names of their ports, are refused.
    """
    kinds = _kept_from_others(kept, clusters) if kept else _kinds(port, clusters)
    found = list(_too_long(api for api in ([port] if port in _APIS else _APIS) if api not in kept))
    found += [_route(kind, match) for kind in kinds for match in kind.matches]
    found += [refusal for api in kept for refusal in _refusals(api)]
    return [*found, _wrong_port(port)] if port in _APIS else found


def _kinds(port: str, clusters: Collection[str]) -> Iterator[_Kind]:
    """Yield the kinds of calls on a port; the first kind that fits a call counts."""
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
    """Yield the kinds of calls that pass on the HTTP port to clients without the `kept` APIs.

    Only listed paths pass: a path with %XX escapes, which a gateway decodes, would get past a list
    of refused paths.
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
    # Gateways hold these calls for up to 50 s, and up to 20 s longer while the broker is away.
    yield _Kind(_grpc(one for one in methods if one.held), api, 75, 80, 155, silence=300)
    # A call that stock tries only once must find a gateway in the end.
    yield _Kind(_grpc(one for one in methods if one.tried_once), api, 60, 600, 660)
    yield _Kind([{"prefix": service} for service in _services(api)], api, 25, 30, 55, silence=300)


def _over_http(apis: Iterable[str], prefix: str, clusters: Collection[str]) -> Iterator[_Kind]:
    methods = [one for api in apis for one in _APIS[api]]
    if HTTP_LOG_RELAY in clusters and _STREAM_LOGS in methods:
        yield _stream([{"path": _STREAM_LOGS.http_path}], HTTP_LOG_RELAY)
    yield _stream([{"path": one.http_path} for one in methods if one.streams], "http")
    if _STREAM_LOGS in methods:
        # A download takes as long as the browser takes it.
        yield _stream([{"path": ARTIFACTS_PATH}], "http")
    yield _Kind([{"path": _HTTP_HEALTH_CHECK}], "http", 2, 2, 4)
    # A process ends within seconds after its farewell, and no ping finds a gateway that hangs.
    farewells = [one for one in methods if one.farewell or one.tried_once]
    matches = [{"path": one.http_path} for one in farewells]
    yield _Kind(matches, "http", 1.5, 23, 28.5, silence=300, hedged=True)
    # Clients give up after 30 s without an answer. Gateways hold calls for 20 s. Envoy keeps to the
    # total time only if it had a gateway at first. Otherwise it keeps to the number of tries from
    # `try_for`.
    yield _Kind([{"prefix": prefix}], "http", 24, 23, 28.5, silence=300)


def _stream(matches: Sequence[Json], cluster: str) -> _Kind:
    return _Kind(matches, cluster, 0, 20, 0)


def _grpc(methods: Iterable[Method]) -> list[Json]:
    return [{"path": path} for one in methods for path in one.grpc_paths]


def _route(kind: _Kind, match: Json) -> Json:
    retries: Json = {
        # Before any part of an answer: no connection, a broken one, or the end of the time.
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
    """Yield the refusals of calls to an API that is not for the caller's machine."""
    refusal = not_for_others(_APIS[api][0].api)
    text, more = refusal.spec.message, refusal.public_details
    over_http, over_grpc = (
        {"detail": text, "extra": more},
        {"public_message": text, "public_details": more},
    )
    said = {"code": int(refusal.code), **over_http, **over_grpc}
    body = {"inline_string": json.dumps(said)}
    # gRPC turns this status into PERMISSION_DENIED, and the gateways' HTTP status into UNKNOWN.
    statuses = {**dict.fromkeys(_services(api), 403), _http_prefix(api): refusal.spec.http_status}
    for prefix, status in statuses.items():
        yield {"match": {"prefix": prefix}, "direct_response": {"status": status, "body": body}}


def _too_long(apis: Iterable[str]) -> Iterator[Json]:
    """Yield the refusals of HTTP calls with a body that is announced as too long.

    A gateway refuses them too, but closes the connection while the balancer still sends, which the
    balancer takes for a fault.
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
    """Return the prefixes of an API's gRPC paths."""
    return [path[: path.rindex("/") + 1] for path in _APIS[api][0].grpc_paths]


def _http_prefix(api: str) -> str:
    """Return the prefix of an API's HTTP paths."""
    first = _APIS[api][0].http_path
    return first[: first.rindex("/") + 1]


def _wrong_port(port: str) -> Json:
    """Return the answer to clients of another API: `flwr` prints it; gRPC says UNIMPLEMENTED."""
    body = {"inline_string": json.dumps({"detail": wrong_port(_APIS[port][0].api)})}
    return {"match": {"prefix": "/"}, "direct_response": {"status": 404, "body": body}}


def seconds(number: float) -> str:
    """Return a time in Envoy's format."""
    return f"{number:g}s"
