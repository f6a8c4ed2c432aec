"""The metadata with which a stock SuperExec proves in each call that it knows the secret."""

from __future__ import annotations

import hashlib
import secrets
import time

from flwr.supercore.auth import compute_superexec_signature, derive_auth_secret

from flower_nats.wire.methods import Method
from harness.channels import WireName


def superexec_proof(
    secret: bytes, method: Method, wire: WireName, body: bytes = b"", offset: int = 0
) -> list[tuple[str, str]]:
    """Return the metadata of a call that is signed now, or `offset` seconds from now."""
    timestamp, nonce = int(time.time()) + offset, secrets.token_hex(16)
    digest = hashlib.sha256(body).hexdigest()
    signature = compute_superexec_signature(
        auth_secret=derive_auth_secret(secret),
        method=method.signed_path if wire == "http" else method.path,
        timestamp=timestamp,
        nonce=nonce,
        body_sha256=digest,
    )
    return [
        ("flwr-superexec-ts", str(timestamp)),
        ("flwr-superexec-nonce", nonce),
        ("flwr-superexec-body-sha256", digest),
        ("flwr-superexec-signature", signature),
    ]
