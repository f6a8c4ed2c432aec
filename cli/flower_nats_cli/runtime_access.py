"""How the SuperExec that `up` starts reaches the runtime: over which wire, and with TLS or without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
from cryptography import x509

from flower_nats.settings import GatewaySettings, TlsFiles
from flower_nats_cli.addresses import LOOPBACK, join_address, reachable, split_address
from flower_nats_cli.flower_version import RUNTIME_OVER_HTTP, FlowerVersion


def opened_for_superexec(gateway: GatewaySettings, version: FlowerVersion) -> GatewaySettings:
    """Return the settings with an address for a SuperExec of this version on this machine.

    Where the HTTP port speaks TLS with a certificate that names no address of this machine's own, that
    is one more port, of the loopback interface and without TLS. Raises UsageError if the wire that
    the SuperExec needs is off.
    """
    over_http = version >= RUNTIME_OVER_HTTP
    if not serves_runtime(gateway, version):
        option = "--http-api-address" if over_http else "--serverappio-api-address"
        raise click.UsageError(
            f"The SuperExec of flwr {version}, which is installed here, needs {option}. Remedy: another "
            f"address than none; or --isolation process, to run one of another version elsewhere."
        )
    if over_http and gateway.tls is not None and _certified_host(gateway) is None:
        return replace(gateway, http_loopback_address=join_address(LOOPBACK, 0))
    return gateway


def serves_runtime(gateway: GatewaySettings, version: FlowerVersion) -> bool:
    """Whether the wire that SuperExecs of a version use is on."""
    over_http = version >= RUNTIME_OVER_HTTP
    return bool(gateway.http_api_address if over_http else gateway.serverappio_api_address)


def runtime_access(gateway: GatewaySettings, version: FlowerVersion) -> tuple[str, Path | None]:
    """Return where a SuperExec on this machine connects, and the CA certificate that it trusts."""
    if version < RUNTIME_OVER_HTTP:
        tls = gateway.appio_tls
        return reachable(gateway.serverappio_api_address), tls.ca_certificate if tls else None
    if gateway.http_loopback_address:
        return gateway.http_loopback_address, None
    address = reachable(gateway.http_api_address)
    if gateway.tls is None:
        return address, None
    host, (_, port) = _certified_host(gateway), split_address(address)
    found = join_address(host, port) if host else certified_address(address, gateway.tls)
    return found, gateway.tls.ca_certificate


def _certified_host(gateway: GatewaySettings) -> str | None:
    """Return a name of this machine's HTTP port that its certificate is good for; None without one."""
    assert gateway.tls is not None
    host, _ = split_address(reachable(gateway.http_api_address))
    candidates = [host, "localhost"] if host == LOOPBACK else [host]
    names = _names_in(gateway.tls.certificate)
    return next((name for name in candidates if name in names), None)


def certified_address(address: str, tls: TlsFiles | None) -> str:
    """Return an address with a host that the certificate is good for, if it has any for one host."""
    host, port = split_address(address)
    names = [host] if tls is None else _names_in(tls.certificate)
    hosts = [name for name in names if not name.startswith("*")]
    return address if host in hosts or not hosts else join_address(hosts[0], port)


def _names_in(certificate: Path) -> list[str]:
    """Return the names and addresses that a certificate is good for."""
    first, *_ = x509.load_pem_x509_certificates(certificate.read_bytes())
    try:
        subjects = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [
        *subjects.get_values_for_type(x509.DNSName),
        *(str(one) for one in subjects.get_values_for_type(x509.IPAddress)),
    ]
