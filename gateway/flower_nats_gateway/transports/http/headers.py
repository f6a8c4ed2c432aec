"""The headers of a request as the metadata of a call."""

import base64
import binascii
import re
from collections.abc import Iterable, Mapping

from flower_nats_gateway.auth.nodes import PUBLIC_KEY, SIGNATURE
from flower_nats_gateway.calls.call import CLIENT_VERSION

PROTOBUF = b"application/protobuf"
PROTOBUF_STREAM = b"application/flower-protobuf-stream"

_IN_BASE64 = {"flwr-public-key": PUBLIC_KEY, "flwr-signature": SIGNATURE}
"""Metadata that gRPC carries as bytes (flwr 1.42 `supernode/node_auth_http_interceptor.py`)."""

_FLOWERS = "flwr-"

_VERSION = re.compile(
    rb"\r\n%s:[ \t]*([\w.+-]{1,64})[ \t]*\r\n" % CLIENT_VERSION.encode(), re.IGNORECASE
)
"""The version of flwr in the head of a request, in characters that are safe for terminals."""


def metadata(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str | bytes]:
    """Return the headers by name.

    A header of Flower that comes twice, or is not the expected base64, proves nothing and is left
    out.
    """
    found: dict[str, str | bytes] = {}
    doubled = set()
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name in found and name.startswith(_FLOWERS):
            doubled.add(name)
        found[name] = value
    for name in doubled:
        del found[name]
    for name, binary_name in _IN_BASE64.items():
        text = found.pop(name, None)
        # Clients must not set gRPC's own name here.
        found.pop(binary_name, None)
        if isinstance(text, str) and (decoded := _decode(text)) is not None:
            found[binary_name] = decoded
    return found


def version_in(head: bytes) -> str | None:
    """Return the version of flwr in the bytes of a request's head, None without one."""
    found = _VERSION.search(head)
    return found[1].decode() if found else None


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
