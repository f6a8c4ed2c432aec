"""Webhooks: their signatures, the permitted addresses, and the forbidden ones."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from flower_nats.model.webhook import (
    BadWebhook,
    check_url,
    new_secret,
    origin_of,
    refusal_of,
    signature_headers,
)


def test_a_receiver_verifies_what_is_sent() -> None:
    """The receiver's code is that in docs/console.md."""
    secret, body = new_secret(), b'{"text": "Run failed"}'
    headers = signature_headers(secret, "event_7", 1_700_000_000, body)

    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert hmac.compare_digest(headers["webhook-signature"], f"v1,{digest}")
    assert new_secret() != secret


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hospital.example",
        "ftp://hospital.example",
        "file:///etc/passwd",
        "https://",
        "https://user:word@hospital.example",
        "https://hospital.example/#x",
        "https://hospital.example:port/",
        "https://[::1/",
        "https://hospital.example/a b",
        "https://hospital.example/\r\nx: y",
        "https://hospital.example/" + "x" * 2_000,
        "https://krankenhaus.example/ü",
        "http://a..b/",
        "http://.hospital.example/",
        "http://./",
        f"http://{'a' * 64}.example/",
        f"http://{'a.' * 127}example/",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(BadWebhook):
        check_url(url)


@pytest.mark.parametrize(
    "url", [f"https://{'a' * 63}.example./", "http://10.0.0.1:80/x", "http://[fd12::1]:80/"]
)
def test_what_is_an_address_is_accepted(url: str) -> None:
    assert check_url(url) == url


def test_an_address_is_shown_without_what_may_be_a_secret() -> None:
    assert origin_of("https://hooks.example/services/T0/B0/secret") == "https://hooks.example/…"
    assert origin_of("https://hooks.example?key=secret") == "https://hooks.example/…"
    assert origin_of("http://hooks.example:8080/") == "http://hooks.example:8080"


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
    ],
)
def test_nothing_is_sent_to_metadata_and_the_like(address: str) -> None:
    assert refusal_of(address, loopback=True)


def test_the_machine_itself_is_reached_only_where_that_is_allowed() -> None:
    for address in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert refusal_of(address, loopback=False)
        assert refusal_of(address, loopback=True) is None
    for address in ("10.1.2.3", "192.168.0.7", "fd12::1", "93.184.216.34", "2606:2800::1"):
        assert refusal_of(address, loopback=False) is None
