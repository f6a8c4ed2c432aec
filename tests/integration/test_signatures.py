"""The signature verifier and its child process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from flower_nats.model.errors import Unavailable
from flower_nats_gateway.auth.signatures import Verifier, check

KEY = ec.generate_private_key(ec.SECP384R1())
PEM = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(message: bytes) -> bytes:
    return KEY.sign(message, ec.ECDSA(hashes.SHA256()))


@pytest.fixture
async def verifier() -> AsyncIterator[Verifier]:
    verifier = Verifier()
    yield verifier
    await verifier.close()


async def test_many_at_once_get_their_own_verdict(verifier: Verifier) -> None:
    messages = [str(number).encode() for number in range(200)]
    verdicts = await asyncio.gather(
        *(
            verifier.verify(PEM, message, sign(message if number % 3 else b"other"))
            for number, message in enumerate(messages)
        )
    )
    assert verdicts == [bool(number % 3) for number in range(200)]


async def test_what_is_no_key_or_no_signature_is_not_valid(verifier: Verifier) -> None:
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    edwards = other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert not await verifier.verify(b"no key", b"m", sign(b"m"))
    assert not await verifier.verify(edwards, b"m", sign(b"m"))
    assert not await verifier.verify(PEM, b"m", b"no signature")
    assert not await verifier.verify(PEM * 1000, b"m", sign(b"m"))
    assert await verifier.verify(PEM, b"m", sign(b"m"))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
async def test_keys_of_any_curve_are_verified(verifier: Verifier, curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signature = key.sign(b"m", ec.ECDSA(hashes.SHA256()))
    assert await verifier.verify(pem, b"m", signature)
    assert not await verifier.verify(pem, b"other", signature)


@given(st.integers(0, 110), st.integers(0, 255), st.binary(max_size=3), st.booleans())
def test_damaged_signatures_get_the_verdict_that_openssl_gives(
    at: int, byte: int, appended: bytes, is_cut: bool
) -> None:
    whole = sign(b"m")
    damaged = whole[:at] + (b"" if is_cut else bytes([byte]) + whole[at + 1 :]) + appended
    try:
        KEY.public_key().verify(damaged, b"m", ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        assert not check(PEM, b"m", damaged)
    else:
        assert check(PEM, b"m", damaged)


async def test_a_child_that_was_killed_is_replaced(verifier: Verifier) -> None:
    assert await verifier.verify(PEM, b"m", sign(b"m"))
    child = verifier.pid
    assert child is not None
    os.kill(child, signal.SIGSTOP)
    waiting = asyncio.create_task(verifier.verify(PEM, b"m", sign(b"m")))
    await asyncio.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    with pytest.raises(Unavailable):
        await waiting
    assert await verifier.verify(PEM, b"m", sign(b"m"))
    assert verifier.pid != child
