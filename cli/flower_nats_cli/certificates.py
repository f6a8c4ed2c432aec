"""TLS files from the command line, checked before anything is started with them."""

from __future__ import annotations

import ssl
from pathlib import Path

import click

from flower_nats.settings import TlsFiles


def check_files(files: TlsFiles, prefix: str) -> None:
    """Raise BadParameter unless the files are what their options (`--<prefix>-…`) ask for."""
    check_certificate(files.certificate, f"--{prefix}-certfile")
    check_certificate(files.ca_certificate, f"--{prefix}-ca-certfile")
    check_key(files.certificate, files.key, f"--{prefix}-keyfile")


def check_key(certificate: Path, key: Path, option: str) -> None:
    """Raise BadParameter unless the key belongs to the certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password keeps OpenSSL from asking at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            why = f"{key} is not the key of the certificate in {certificate}."
        else:
            why = f"{key} contains no private key in PEM form without a password."
        raise click.BadParameter(why, param_hint=option) from exc
    except OSError as exc:
        raise click.BadParameter(f"{key}: {exc.strerror}.", param_hint=option) from exc


def check_certificate(path: Path, option: str) -> None:
    """Raise BadParameter unless the file holds certificates in PEM form."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as exc:
        why = f"{path} contains no certificate in PEM form."
        raise click.BadParameter(why, param_hint=option) from exc
    except OSError as exc:
        raise click.BadParameter(f"{path}: {exc.strerror}.", param_hint=option) from exc
