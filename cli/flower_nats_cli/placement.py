"""Listening addresses: of one gateway that serves the APIs, or of several behind a balancer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from flower_nats.embedded.envoy import Api
from flower_nats.embedded.ports import free_ports
from flower_nats.model.exposure import exposure
from flower_nats.settings import GatewaySettings, OidcSettings, TlsFiles
from flower_nats_cli.addresses import LOOPBACK, join_address
from flower_nats_gateway.transports.log_relay import BALANCER, LogRelay

API_ADDRESSES = (
    "http_api_address",
    "serverappio_api_address",
    "fleet_api_address",
    "control_api_address",
)
"""The names in `GatewaySettings` of the addresses for Flower's clients; each may be empty."""


@dataclass(frozen=True)
class Edges:
    """The gateways of one machine and what is in front of them."""

    gateways: Sequence[GatewaySettings]
    """Settings of each gateway."""

    balanced: Sequence[Api]
    """What a balancer serves; empty without a balancer."""

    log_relay: LogRelay | None = None
    """Serves log streams beside the balancer, if there is a balancer."""


def edges(public: GatewaySettings, replicas: int) -> Edges:
    """Place `replicas` gateways so that clients find them at the addresses in `public`."""
    if replicas == 1:
        return Edges([public], [])
    gateways = [_private(public) for _ in range(replicas)]
    relay, http_relay, relayed = (join_address(LOOPBACK, port) for port in free_ports(3))
    control, for_relay = _api("control", public, gateways).with_log_relay(relay, relayed)
    http = replace(_api("http", public, gateways), log_relay=http_relay)
    served = [http, *(_api(name, public, gateways) for name in ("serverappio", "fleet")), control]
    apis = [*(api for api in served if api.listen), for_relay]
    if public.health_server_address is not None:
        asked = [gateway.serverappio_api_address for gateway in gateways]
        apis.append(Api("health", public.health_server_address, asked, None))
    return Edges(gateways, apis, LogRelay(relay, http_relay, gateways=relayed))


def _api(name: str, public: GatewaySettings, gateways: Sequence[GatewaySettings]) -> Api:
    """Return a port of the balancer, which listens nowhere if the port is off."""
    address = f"{name}_api_address"
    return Api(
        name,
        getattr(public, address),
        [getattr(gateway, address) for gateway in gateways],
        public.appio_tls if name == "serverappio" else public.tls,
        loopback=public.http_loopback_address if name == "http" else "",
        kept=_kept(public) if name == "http" else (),
    )


def _kept(public: GatewaySettings) -> Sequence[str]:
    for_others = {"control": public.control_to_others, "serverappio": public.runtime_to_others}
    return [api for api, served in for_others.items() if not served]


def gateway_flags(gateway: GatewaySettings, *, balanced: bool) -> list[str]:
    """Return the flags that make `flower-nats gateway` listen as these settings say."""
    flags = []
    for name in API_ADDRESSES:
        flags += [f"--{name.replace('_', '-')}", getattr(gateway, name) or "none"]
    switches = {
        "--http-control": gateway.control_to_others,
        "--insecure-appio": gateway.runtime_to_others,
        "--require-accounts": gateway.require_accounts,
        "--enable-supernode-auth": gateway.enable_supernode_auth,
        "--record-metrics": gateway.record_metrics,
    }
    flags += [flag for flag, is_on in switches.items() if is_on]
    if gateway.http_loopback_address:
        flags += ["--http-loopback-address", gateway.http_loopback_address]
    if gateway.health_server_address is not None:
        flags += ["--health-server-address", gateway.health_server_address]
    if balanced:
        flags += ["--tls-terminated"]
    elif gateway.tls is None:
        flags += ["--insecure"]
    else:
        flags += _tls_flags("--ssl", gateway.tls)
    if gateway.appio_tls is not None:
        flags += _tls_flags("--appio-ssl", gateway.appio_tls)
    if gateway.trusted_balancers:
        flags += ["--trusted-balancers", ",".join(gateway.trusted_balancers)]
    if gateway.control_by_balancer:
        flags += ["--control-by-balancer", ",".join(gateway.control_by_balancer)]
    if gateway.balancer_certificates:
        flags += ["--balancer-certfile", ",".join(map(str, gateway.balancer_certificates))]
    if gateway.login_url:
        flags += ["--login-url", gateway.login_url]
    for limit in fields(gateway.storage_limits):
        flags += [f"--max-{limit.name}-mib", str(getattr(gateway.storage_limits, limit.name))]
    return flags


def oidc_flags(oidc: OidcSettings) -> list[str]:
    """Return the flags that make `flower-nats superlink` ask this issuer."""
    given = {
        "issuer": oidc.url,
        "client-id": oidc.client_id,
        "client-secret-file": oidc.client_secret_file,
        "scopes": oidc.scopes,
        "audience": oidc.audience,
        "name-claim": oidc.name_claim,
        "groups-claim": oidc.groups_claim,
        "operator-group": oidc.operator_group,
        "ca-certfile": oidc.ca_certificate,
    }
    return [word for name, one in given.items() if one for word in (f"--oidc-{name}", str(one))]


def _private(public: GatewaySettings) -> GatewaySettings:
    """Return settings for a gateway on free ports of the loopback interface, in the clear.

    It has all addresses, even those that the public settings lack, because gRPC clients come to the
    HTTP port too.
    """
    ports = free_ports(len(API_ADDRESSES))
    addresses: dict[str, Any] = {
        name: join_address(LOOPBACK, port) for name, port in zip(API_ADDRESSES, ports, strict=True)
    }
    return replace(
        public,
        **addresses,
        # The balancer connects from this machine, and decides what other machines get.
        control_to_others=True,
        runtime_to_others=True,
        trusted_balancers=(BALANCER,),
        control_by_balancer=tuple(exposure(public)["control"]),
        balancer_certificates=tuple(
            files.certificate for files in (public.tls, public.appio_tls) if files is not None
        ),
        http_loopback_address="",
        health_server_address=None,
        tls=None,
        appio_tls=None,
    )


def _tls_flags(prefix: str, files: TlsFiles) -> list[str]:
    return [
        *(f"{prefix}-certfile", str(files.certificate)),
        *(f"{prefix}-keyfile", str(files.key)),
        *(f"{prefix}-ca-certfile", str(files.ca_certificate)),
    ]
