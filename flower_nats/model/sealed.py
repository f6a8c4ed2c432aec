"""Secrets of an issuer, encrypted so that only the holder of our token can read them.

The database has only the hash of that token, from which no key can be derived.
"""

import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_NONCE_BYTES = 12


class CannotOpen(Exception):
    """It was sealed by another token, or changed since."""


def seal(token: str, secret: str) -> bytes:
    """Return a secret as only `open_sealed` with the same token reads it."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + _cipher(token).encrypt(nonce, secret.encode(), None)


def open_sealed(token: str, sealed: bytes) -> str:
    """Return the secret. Raises CannotOpen."""
    try:
        opened = _cipher(token).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except (InvalidTag, ValueError) as exc:
        raise CannotOpen from exc
    return opened.decode()


def _cipher(token: str) -> AESGCM:
    key = HKDF(SHA256(), length=32, salt=None, info=b"flower-nats issuer secret")
    return AESGCM(key.derive(token.encode()))
