"""The keys that SuperNodes may have; each key has one spelling."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.model.node_key import is_node_key

CURVES = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
KEYS = [ec.generate_private_key(curve).public_key() for curve in CURVES]


def pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("key", KEYS, ids=[curve.name for curve in CURVES])
def test_what_stock_clients_send_is_a_key(key: ec.EllipticCurvePublicKey) -> None:
    assert is_node_key(public_key_to_bytes(key))


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP256K1(), ec.BrainpoolP384R1()])
def test_other_curves_are_not(curve: ec.EllipticCurve) -> None:
    assert not is_node_key(pem(ec.generate_private_key(curve).public_key()))


def test_other_kinds_of_keys_are_not() -> None:
    assert not is_node_key(pem(ed25519.Ed25519PrivateKey.generate().public_key()))
    assert not is_node_key(pem(rsa.generate_private_key(65537, 2048).public_key()))
    assert not is_node_key(b"")


def test_other_spellings_of_a_key_are_not() -> None:
    for key in KEYS:
        whole = pem(key)
        compressed = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        others = (
            whole.rstrip(),
            whole + b"\n",
            b"\n" + whole,
            b"a comment\n" + whole,
            whole.replace(b"\n", b"\r\n"),
            whole.replace(b"KEY-----\n", b"KEY-----\n\n", 1),
            whole.replace(b"PUBLIC", b"TRUSTED PUBLIC"),
            whole.decode().encode("utf-16"),
            key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
            compressed,
        )
        assert not any(is_node_key(other) for other in others)


@given(st.sampled_from(KEYS), st.integers(0, 267), st.binary(max_size=2), st.integers(0, 2))
def test_one_key_has_one_spelling(
    key: ec.EllipticCurvePublicKey, at: int, put: bytes, cut: int
) -> None:
    whole = pem(key)
    changed = whole[:at] + put + whole[at + cut :]
    if changed != whole and is_node_key(changed):
        try:
            other = load_pem_public_key(changed)
        except ValueError:
            return
        assert other != key
