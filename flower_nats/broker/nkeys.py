"""NKeys: a client of NATS signs the server's nonce to log in, and sends no password.

A seed (`SU…`, as `nk -gen user` and `nsc` make it) takes the place of the password in a URL.
"""

from __future__ import annotations

import base64
import binascii

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED_OF_USER = bytes([18 << 3 | 20 << 3 >> 5, (20 << 3 & 31) << 3])
"""The first bytes of a user's seed (NATS, `nkeys/strkey.go`)."""

_USER = bytes([20 << 3])
_CHECKSUM = 2
_RAW = len(_SEED_OF_USER) + 32


class UserKey:
    """The key of a user of NATS."""

    def __init__(self, raw: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(raw)
        self.public = _text(_USER + self._key.public_key().public_bytes_raw())
        """The public key that the server knows, `U…`."""

    def sign(self, nonce: str) -> bytes:
        """Sign the server's nonce."""
        return base64.b64encode(self._key.sign(nonce.encode()))


def user_key(seed: str) -> UserKey | None:
    """Return the key of a seed; None for other text, such as a password."""
    try:
        decoded = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        return None
    raw, checksum = decoded[:-_CHECKSUM], decoded[-_CHECKSUM:]
    if len(raw) != _RAW or not raw.startswith(_SEED_OF_USER) or checksum != _checksum(raw):
        return None
    return UserKey(raw.removeprefix(_SEED_OF_USER))


def _text(raw: bytes) -> str:
    return base64.b32encode(raw + _checksum(raw)).decode().rstrip("=")


def _checksum(raw: bytes) -> bytes:
    return binascii.crc_hqx(raw, 0).to_bytes(_CHECKSUM, "little")
