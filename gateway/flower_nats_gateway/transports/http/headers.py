"""The headers of a request as the metadata of a call."""

import base64
import binascii
from collections.abc import Iterable, Mapping

from flower_nats_gateway.auth.nodes import PUBLIC_KEY, SIGNATURE

PROTOBUF = b"application/protobuf"
PROTOBUF_STREAM = b"application/flower-protobuf-stream"

_IN_BASE64 = {"flwr-public-key": PUBLIC_KEY, "flwr-signature": SIGNATURE}
"""What gRPC carries as bytes (flwr 1.42 `supernode/node_auth_http_interceptor.py`)."""

_FLOWERS = "flwr-"


def metadata(headers: Iterable[tuple[bytes, bytes]]) -> Mapping[str, str | bytes]:
    """Return the headers by name.

    One of Flower's that comes twice proves nothing, and neither does one that is not the base64 that it
    should be: both are left out.
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
        # The name of gRPC's is not for clients to give here.
        found.pop(binary_name, None)
        if isinstance(text, str) and (decoded := _decode(text)) is not None:
            found[binary_name] = decoded
    return found


def _decode(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
