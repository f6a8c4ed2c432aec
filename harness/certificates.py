"""A certificate authority for tests, and keys such as SuperNodes use."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class ServerCertificates:
    """PEM files with which a server on the loopback interface speaks TLS."""

    ca_certificate: Path
    certificate: Path
    key: Path


@dataclass(frozen=True)
class NodeKey:
    """An OpenSSH key pair on P-384, as `ssh-keygen -t ecdsa -b 384` writes it."""

    private: Path
    public: Path


_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
"""The key usage of a certificate authority."""


def create_server_certificates(folder: Path, name: str = "localhost") -> ServerCertificates:
    """Create a certificate authority, and a certificate for a host name signed by it.

    A certificate for localhost is valid for 127.0.0.1 as well.
    """
    ca_key = ec.generate_private_key(ec.SECP384R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "flower-nats tests")])
    ca = (
        _certificate(ca_name, ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS, critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    server_key = ec.generate_private_key(ec.SECP384R1())
    server_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    reachable_as: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        reachable_as.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    server = (
        _certificate(server_name, ca_name, server_key.public_key())
        .add_extension(x509.SubjectAlternativeName(reachable_as), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    files = ServerCertificates(folder / "ca.crt", folder / "server.pem", folder / "server.key")
    files.ca_certificate.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    files.certificate.write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(_private_bytes(server_key, serialization.PrivateFormat.PKCS8))
    return files


def shown_at(address: str, protocol: str = "h2") -> bytes:
    """Shake hands, and return the certificate that the server shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([protocol])
    host, _, port = address.partition(":")
    with (
        socket.create_connection((host, int(port)), timeout=10) as connection,
        context.wrap_socket(connection) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return shown


def in_file(certificate: Path) -> bytes:
    """Return the certificate of a PEM file in DER, as servers show it."""
    return ssl.PEM_cert_to_DER_cert(certificate.read_text())


def create_node_key(folder: Path, name: str) -> NodeKey:
    """Create a SuperNode's key pair."""
    key = ec.generate_private_key(ec.SECP384R1())
    files = NodeKey(folder / name, folder / f"{name}.pub")
    files.private.write_bytes(_private_bytes(key, serialization.PrivateFormat.OpenSSH))
    files.public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    )
    return files


def _certificate(
    subject: x509.Name, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        # Python 3.13 refuses certificates without it, and authorities without their key usage.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _private_bytes(
    key: ec.EllipticCurvePrivateKey, private_format: serialization.PrivateFormat
) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, private_format, serialization.NoEncryption()
    )
