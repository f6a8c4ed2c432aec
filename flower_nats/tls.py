"""A server's certificate and key, from files."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

from flower_nats.renewable import Renewable
from flower_nats.settings import TlsFiles

T = TypeVar("T")


def server_context(tls: TlsFiles) -> ssl.SSLContext:
    """Return the TLS context for these files. Raises OSError, which includes SSLError.

    Files that do not work for a server are refused: a wrong pair, or a key with a password.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # The empty password keeps OpenSSL from asking at the terminal.
    context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    return context


def renewable(tls: TlsFiles, make: Callable[[], T]) -> Renewable[T]:
    """Return the value that `make` makes of the files, made again after they are renewed.

    Renewed files are used once they are a pair. Until then the old value stays.
    """

    def checked() -> T:
        server_context(tls)
        return make()

    return Renewable([tls.certificate, tls.key, tls.ca_certificate], checked)
