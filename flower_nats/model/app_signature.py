"""Signatures of apps, as stock SuperNodes with --trusted-entities check them.

The Ed25519 signature covers eight bytes of time, in whole seconds since 1970 and big-endian, and
then the SHA-256 of the FAB (flwr 1.30 to 1.42 `supercore/primitives/asymmetric_ed25519.py`). With
`--trusted-entities`, a SuperNode looks in `Fab.verifications` for an id that it trusts. The value
is JSON with `signature` (base64 for URLs) and `signed_at` (there,
`supernode/start_client_internal.py`).
"""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from flower_nats.model.errors import FlowerNatsError

LICENSE = "valid_license"
"""The id with which a server says that it supports signatures. No key has it."""

_FAB_HASH = re.compile(r"[0-9a-f]{64}\Z")
_KEY_ID = re.compile(r"[A-Za-z0-9_.:@+/=-]{1,200}\Z")
_LATEST = 2**63 - 1


class BadAppSignature(FlowerNatsError):
    """A text is not the signature of an app; the message says why."""


@dataclass(frozen=True)
class AppSignature:
    """One entity's signature of one FAB."""

    fab_hash: str
    """SHA-256 of the FAB, in hex."""

    key_id: str
    """The key's name in the SuperNodes' file of trusted entities."""

    public_key: str
    """The key in OpenSSH format. It serves to find mistakes: SuperNodes have their own copy."""

    signature: str
    """In base64 for URLs, without padding."""

    signed_at: int
    """Seconds since 1970."""

    @property
    def verification(self) -> str:
        """The value that SuperNodes get."""
        return json.dumps({"signature": self.signature, "signed_at": self.signed_at})

    def to_json(self) -> str:
        """Return the signature as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"


def sign_fab(fab: bytes, key: Ed25519PrivateKey, key_id: str, signed_at: int) -> AppSignature:
    """Sign a FAB; without an id, the key's fingerprint is its id. Raises `BadAppSignature`."""
    public_key = _openssh(key.public_key())
    digest = hashlib.sha256(fab).digest()
    signature = base64.urlsafe_b64encode(key.sign(_signed(digest, signed_at)))
    made = AppSignature(
        fab_hash=digest.hex(),
        key_id=key_id or _fingerprint(public_key),
        public_key=public_key,
        signature=signature.rstrip(b"=").decode(),
        signed_at=signed_at,
    )
    _check(made)
    return made


def read_app_signature(text: str) -> AppSignature:
    """Read a signature and check it. Raises `BadAppSignature`."""
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise BadAppSignature(f"it is not JSON: {exc}") from exc
    if not isinstance(found, Mapping) or set(found) != set(AppSignature.__dataclass_fields__):
        names = ", ".join(AppSignature.__dataclass_fields__)
        raise BadAppSignature(f"it must have {names}, and nothing else")
    for name, value in found.items():
        kind = int if name == "signed_at" else str
        if type(value) is not kind:
            raise BadAppSignature(f"{name} has the wrong type")
    signature = AppSignature(**found)
    _check(signature)
    return signature


def _check(one: AppSignature) -> None:
    """Check the signature: SuperNodes must not get one that makes them fail."""
    if not _FAB_HASH.match(one.fab_hash):
        raise BadAppSignature("fab_hash is not a SHA-256 in hex")
    if not _KEY_ID.match(one.key_id) or one.key_id == LICENSE:
        raise BadAppSignature(
            f"{one.key_id[:200]!r} cannot be the id of a key: letters, digits and any of _.:@+/=-"
        )
    if not 0 <= one.signed_at <= _LATEST:
        raise BadAppSignature("signed_at is not a time")
    try:
        key = load_ssh_public_key(one.public_key.encode())
        padding = "=" * (-len(one.signature) % 4)
        signature = base64.b64decode(one.signature + padding, altchars=b"-_", validate=True)
    except (ValueError, UnsupportedAlgorithm, binascii.Error) as exc:
        raise BadAppSignature(f"public_key or signature cannot be read: {exc}") from exc
    if not isinstance(key, Ed25519PublicKey):
        raise BadAppSignature("public_key is not an Ed25519 key")
    try:
        key.verify(signature, _signed(bytes.fromhex(one.fab_hash), one.signed_at))
    except InvalidSignature as exc:
        raise BadAppSignature("the signature is not by this key, or not of this FAB") from exc


def _signed(digest: bytes, signed_at: int) -> bytes:
    return signed_at.to_bytes(8, "big") + digest


def _openssh(key: Ed25519PublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _fingerprint(public_key: str) -> str:
    """Return a key's fingerprint as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split(" ")[1])).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode()
