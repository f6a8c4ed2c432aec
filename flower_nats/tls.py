"""A server's certificate and key, as files hold them."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TypeVar

from flower_nats.renewable import Renewable
from flower_nats.settings import TlsFiles

T = TypeVar("T")


def server_context(tls: TlsFiles) -> ssl.SSLContext:
    """Return what Python's own TLS serves with these files. Raises OSError, as which SSLError counts.

    It is refused whatever would not do for a server: half of a pair, a key with a password.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # An empty password in the place of a question at the terminal.
    context.load_cert_chain(tls.certificate, tls.key, password=lambda: "")
    return context


def renewable(tls: TlsFiles, make: Callable[[], T]) -> Renewable[T]:
    """Return what `make` makes of the files, and makes again after they have been renewed.

    Files are used once they are a pair: until then what was made before stays.
    """

    def checked() -> T:
        server_context(tls)
        return make()

    return Renewable([tls.certificate, tls.key, tls.ca_certificate], checked)
