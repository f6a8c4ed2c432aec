"""How this machine reaches the runtime that `up` starts: at which address, with TLS or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from cryptography import x509

from flower_nats.embedded.ports import is_free
from flower_nats.settings import GatewaySettings, TlsFiles
from flower_nats_cli.addresses import (
    LOOPBACK,
    is_loopback,
    is_of_loopback,
    join_address,
    reachable,
    split_address,
)
from flower_nats_cli.flower_version import CONTROL_OVER_HTTP, RUNTIME_OVER_HTTP, FlowerVersion


def opened_here(gateway: GatewaySettings) -> GatewaySettings:
    """Return the settings with an address where this machine reaches all APIs of the HTTP port.

    A connection to an address that other machines reach gets fewer APIs. If the HTTP port listens
    on no loopback address, or its TLS certificate names none, a further port is opened, on the
    loopback interface and without TLS.
    """
    if not gateway.http_api_address or _local_host(gateway) is not None:
        return gateway
    return replace(gateway, http_loopback_address=join_address(LOOPBACK, _port_beside(gateway)))


def _port_beside(gateway: GatewaySettings) -> int:
    """Return the port after the HTTP port, so that each start uses the same; 0 if it is taken."""
    others = (
        gateway.serverappio_api_address,
        gateway.fleet_api_address,
        gateway.control_api_address,
        gateway.health_server_address,
    )
    _, http = split_address(gateway.http_api_address)
    wanted = http + 1
    taken = wanted in {split_address(one)[1] for one in others if one}
    return wanted if 1 < wanted < 65536 and not taken and is_free(wanted) else 0


def with_login_page(gateway: GatewaySettings) -> GatewaySettings:
    """Return the settings with the address of the page to log in on, if TLS is spoken here.

    Over gRPC a gateway does not learn the host name that a client used. So the name comes from the
    certificate.
    """
    if gateway.login_url or gateway.tls is None:
        return gateway
    address = gateway.control_api_address
    if not address or (gateway.control_to_others and is_of_loopback(address)):
        address = gateway.http_api_address
    if not address:
        return gateway
    url = f"https://{certified_address(reachable(address), gateway.tls)}"
    return replace(gateway, login_url=url)


def check_serves(gateway: GatewaySettings, version: FlowerVersion) -> None:
    """Raise UsageError if the wire that a SuperExec of this version needs is off."""
    if not serves_runtime(gateway, version):
        over_http = version >= RUNTIME_OVER_HTTP
        option = "--http-api-address" if over_http else "--serverappio-api-address"
        raise click.UsageError(
            f"The SuperExec that is installed here is of flwr {version}, and needs {option}. "
            "Remedy: set this option to an address; or use --isolation process, and start a "
            "SuperExec of another version yourself."
        )


def serves_runtime(gateway: GatewaySettings, version: FlowerVersion) -> bool:
    """Whether the wire that SuperExecs of a version use is on."""
    over_http = version >= RUNTIME_OVER_HTTP
    return bool(gateway.http_api_address if over_http else gateway.serverappio_api_address)


def runtime_access(gateway: GatewaySettings, version: FlowerVersion) -> tuple[str, Path | None]:
    """Return where a SuperExec on this machine connects, and the CA certificate that it trusts."""
    if version < RUNTIME_OVER_HTTP:
        tls = gateway.appio_tls
        return reachable(gateway.serverappio_api_address), tls.ca_certificate if tls else None
    return http_access(gateway)


def http_access(gateway: GatewaySettings) -> tuple[str, Path | None]:
    """Return where this machine reaches all APIs over HTTP, and the CA certificate to trust."""
    if gateway.http_loopback_address:
        return gateway.http_loopback_address, None
    host, (_, port) = _local_host(gateway), split_address(reachable(gateway.http_api_address))
    assert host is not None, "the settings are not `opened_here`"
    return join_address(host, port), gateway.tls.ca_certificate if gateway.tls else None


def control_access(gateway: GatewaySettings) -> tuple[str, Path | None]:
    """Return where this machine reaches the port of Control, and the CA certificate to trust."""
    tls, address = gateway.tls, reachable(gateway.control_api_address)
    if tls is None:
        return address, None
    if gateway.http_loopback_address and is_loopback(address) and not _names_here(address, tls):
        # No client could verify its certificate there. The HTTP port serves Control over both wires
        # too.
        return gateway.http_loopback_address, None
    return certified_address(address, tls), tls.ca_certificate


def flwr_access(gateway: GatewaySettings, version: FlowerVersion) -> tuple[str, Path | None]:
    """Return where `flwr` of a version finds Control on this machine, and the CA certificate to trust.

    The address is empty if `flwr` cannot reach Control.
    """
    if gateway.http_api_address and version >= CONTROL_OVER_HTTP:
        return http_access(gateway)
    return control_access(gateway) if gateway.control_api_address else ("", None)


def _local_host(gateway: GatewaySettings) -> str | None:
    """Return a loopback host where HTTP is served with a valid certificate; None without one."""
    address = reachable(gateway.http_api_address)
    if not is_loopback(address):
        return None
    if gateway.tls is None:
        return split_address(address)[0]
    return next(iter(_names_here(address, gateway.tls)), None)


def _names_here(address: str, tls: TlsFiles) -> list[str]:
    """Return the loopback names, for a port, that the certificate is valid for."""
    host, _ = split_address(address)
    candidates = [host, "localhost"] if host == LOOPBACK else [host]
    names = _names_in(tls.certificate)
    return [name for name in candidates if name in names]


def certified_address(address: str, tls: TlsFiles | None) -> str:
    """Return an address with a host that the certificate is valid for, if it names one."""
    host, port = split_address(address)
    names = [host] if tls is None else _names_in(tls.certificate)
    hosts = [name for name in names if not name.startswith("*")]
    return address if host in hosts or not hosts else join_address(hosts[0], port)


def _names_in(certificate: Path) -> list[str]:
    """Return the names and addresses that a certificate is valid for."""
    first, *_ = x509.load_pem_x509_certificates(certificate.read_bytes())
    try:
        subjects = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *subjects.get_values_for_type(x509.DNSName),
        *(str(one) for one in subjects.get_values_for_type(x509.IPAddress)),
    ]
