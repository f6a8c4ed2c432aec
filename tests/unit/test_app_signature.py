"""Signatures of apps, checked by the stock SuperNode's own code."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.supercore.fab import Fab
from flwr.supernode.start_client_internal import _verify_fab

from flower_nats.model.app_signature import (
    LICENSE,
    AppSignature,
    BadAppSignature,
    read_app_signature,
    sign_fab,
)

KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
FAB = b"bytes of an app"


def signed(key: Ed25519PrivateKey = KEY, key_id: str = "reviewer") -> AppSignature:
    return sign_fab(FAB, key, key_id, 1_800_000_000)


def is_trusted(signature: AppSignature, trusted: AppSignature, fab: bytes = FAB) -> bool:
    verifications = {signature.key_id: signature.verification, LICENSE: "Valid"}
    entities = {trusted.key_id: trusted.public_key}
    return bool(_verify_fab(Fab(signature.fab_hash, fab, verifications), entities))


def test_a_supernode_trusts_the_key_that_it_knows_and_no_other() -> None:
    assert is_trusted(signed(), signed())
    assert not is_trusted(signed(OTHER), signed())
    assert not is_trusted(signed(OTHER, "other"), signed())
    assert not is_trusted(signed(), signed(), FAB + b"changed")


def test_a_key_is_known_by_its_fingerprint_unless_it_has_a_name() -> None:
    assert signed(key_id="").key_id.startswith("SHA256:")
    assert is_trusted(signed(key_id=""), signed(key_id=""))


def test_a_signature_is_read_as_it_was_written() -> None:
    assert read_app_signature(signed().to_json()) == signed()


@pytest.mark.parametrize(
    "changed",
    [
        {"fab_hash": "no hash"},
        {"fab_hash": "0" * 64},
        {"key_id": LICENSE},
        {"key_id": "two\nlines"},
        {"key_id": ""},
        {"public_key": "no key"},
        {"public_key": signed(OTHER).public_key},
        {"signature": "no signature"},
        {"signature": "AAAA"},
        {"signed_at": 1},
        {"signed_at": -1},
        {"signed_at": 2**63},
    ],
)
def test_what_a_supernode_would_stumble_over_is_refused(changed: dict[str, str | int]) -> None:
    text = replace(signed(), **changed).to_json()  # type: ignore[arg-type]
    with pytest.raises(BadAppSignature):
        read_app_signature(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "3",
        json.dumps({**json.loads(signed().to_json()), "more": 1}),
        json.dumps({**json.loads(signed().to_json()), "signed_at": "1"}),
        json.dumps({**json.loads(signed().to_json()), "signed_at": True}),
    ],
)
def test_what_is_no_signature_at_all_is_refused(text: str) -> None:
    with pytest.raises(BadAppSignature):
        read_app_signature(text)


@pytest.mark.parametrize("key_id", [LICENSE, "a b", "x" * 201])
def test_a_key_cannot_have_just_any_id(key_id: str) -> None:
    with pytest.raises(BadAppSignature):
        signed(key_id=key_id)
