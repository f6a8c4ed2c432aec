"""The keys of SuperNodes: three curves, and one spelling of each key.

The runtime compares keys as bytes. If a key had several spellings (spaces, comments, compressed
points, explicit parameters), one key could be many nodes. So only one spelling is allowed, that of
stock's `public_key_to_bytes` (flwr 1.30 to 1.42 `supercore/primitives/asymmetric.py`): PEM in lines
of 64 characters, of a SubjectPublicKeyInfo that names its curve and holds the point uncompressed.
"""

import binascii
from base64 import b64decode, b64encode

_BEGIN = b"-----BEGIN PUBLIC KEY-----\n"
_END = b"-----END PUBLIC KEY-----\n"
_LINE = 64

_HEADS = {
    length: bytes.fromhex(head)
    for length, head in (
        # P-256, P-384 and P-521, each up to the byte that marks an uncompressed point.
        (91, "3059301306072a8648ce3d020106082a8648ce3d03010703420004"),
        (120, "3076301006072a8648ce3d020106052b8104002203620004"),
        (158, "30819b301006072a8648ce3d020106052b810400230381860004"),
    )
}
"""The beginning of a key's DER, by its length in bytes."""

LONGEST_KEY = 268
"""Bytes of the PEM of a P-521 key, the longest one."""


def is_node_key(pem: bytes) -> bool:
    """Return whether this is the one spelling of a key on P-256, P-384 or P-521.

    This takes microseconds, and comes before more expensive checks. It does not check that the
    point is on its curve: no signature verifies with such a point.
    """
    if len(pem) > LONGEST_KEY or not (pem.startswith(_BEGIN) and pem.endswith(_END)):
        return False
    try:
        der = b64decode(pem[len(_BEGIN) : -len(_END)].replace(b"\n", b""), validate=True)
    except binascii.Error:
        return False
    head = _HEADS.get(len(der))
    return head is not None and der.startswith(head) and pem == _spelled(der)


def _spelled(der: bytes) -> bytes:
    text = b64encode(der)
    lines = [text[at : at + _LINE] + b"\n" for at in range(0, len(text), _LINE)]
    return b"".join((_BEGIN, *lines, _END))
