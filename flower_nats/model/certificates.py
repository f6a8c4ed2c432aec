"""When servers' certificates expire, and the warnings for an operator."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

_SOON = 21
"""Days before its end from which a certificate causes a warning: time to get a new one."""

Map = Mapping[str, Any]


def described(certificate: x509.Certificate, of: str) -> Map:
    """Return {of, names, expires_at}; `of` names the server with the certificate, in words."""
    names = [one.rfc4514_string() for one in certificate.subject.rdns]
    return {
        "of": of,
        "names": ", ".join(names)[:200],
        "expires_at": certificate.not_valid_after_utc.isoformat(),
    }


def in_file(path: Path, of: str) -> list[Map]:
    """Describe a server's certificate from its PEM file; empty if the file is not readable."""
    try:
        return [described(x509.load_pem_x509_certificate(path.read_bytes()), of)]
    except (OSError, ValueError):
        return []


def names_in(path: Path) -> list[str]:
    """Return the host names in the certificate of a PEM file, in lower case."""
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    try:
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in named.get_values_for_type(x509.DNSName)]


def shown(der: bytes | None, of: str) -> list[Map]:
    """Describe the certificate that a server has presented to us, if any."""
    try:
        return [] if der is None else [described(x509.load_der_x509_certificate(der), of)]
    except ValueError:
        return []


def days_left(certificate: Map, now: datetime | None = None) -> float:
    """Return the days until a certificate ends, negative if it has ended."""
    left = datetime.fromisoformat(certificate["expires_at"]) - (now or datetime.now(UTC))
    return left.total_seconds() / 86_400


def together(certificates: Iterable[Map]) -> list[Map]:
    """Return each certificate once, those that expire first at the start."""
    different = {tuple(sorted(one.items())): one for one in certificates}
    return sorted(different.values(), key=lambda one: (one["expires_at"], one["of"]))


_REMEDY = (
    "Remedy: replace it by a new certificate. Gateways and consoles load it by themselves; NATS "
    "and PostgreSQL have to reload their configuration."
)


def expired(certificates: Iterable[Map]) -> Iterator[str]:
    """Describe the expired certificates, each with the remedy."""
    for one in certificates:
        if days_left(one) < 0:
            yield (
                f"the certificate of {one['of']} ({one['names']}) expired on "
                f"{one['expires_at'][:10]}: clients that verify it can no longer connect. "
                f"{_REMEDY}"
            )


def expiring(certificates: Iterable[Map]) -> Iterator[str]:
    """Describe the certificates that expire soon, each with the remedy."""
    for one in certificates:
        if 0 <= (left := days_left(one)) < _SOON:
            days = f"{left:.0f} day{'' if round(left) == 1 else 's'}"
            yield (
                f"The certificate of {one['of']} ({one['names']}) expires on "
                f"{one['expires_at'][:10]}, in {days}. {_REMEDY}"
            )
