"""The caller's address: a balancer's header counts only if the balancer is trusted."""

from __future__ import annotations

import asyncio

import pytest

from flower_nats.wire.request_id import CLIENT_ADDRESS
from flower_nats_gateway.calls.balancers import Balancers

SAID = {CLIENT_ADDRESS: "203.0.113.7"}


@pytest.mark.parametrize(
    ("trusted", "peer", "client"),
    [
        ([], "127.0.0.1:5000", "127.0.0.1"),
        ([], "ipv4:10.0.5.1:5000", "10.0.5.1"),
        (["127.0.0.1"], "ipv4:127.0.0.1:5000", "203.0.113.7"),
        (["10.0.5.0/24"], "10.0.5.1:5000", "203.0.113.7"),
        (["10.0.5.0/24"], "10.0.6.1:5000", "10.0.6.1"),
        (["10.0.5.0/24"], "ipv6:%5B::ffff:10.0.5.1%5D:5000", "203.0.113.7"),
        (["fd00::/8"], "fd00::1:5000", "203.0.113.7"),
        (["10.0.5.1"], "unix:/run/socket", "unix"),
    ],
)
def test_a_client_is_whom_a_trusted_balancer_names(
    trusted: list[str], peer: str, client: str
) -> None:
    assert Balancers(trusted).client_of(peer, SAID) == client


@pytest.mark.parametrize("said", ["", "nobody", "203.0.113.7, 10.0.0.1", "\x1b[2J"])
def test_a_client_that_is_not_named_properly_is_the_balancer(said: str) -> None:
    assert Balancers(["10.0.5.1"]).client_of("10.0.5.1:1", {CLIENT_ADDRESS: said}) == "10.0.5.1"


def test_a_client_is_named_in_one_way() -> None:
    balancers = Balancers(["10.0.5.1"])
    mapped = {CLIENT_ADDRESS: "::ffff:203.0.113.7"}
    assert balancers.client_of("10.0.5.1:1", mapped) == "203.0.113.7"


async def test_a_balancer_may_have_a_name() -> None:
    balancers = Balancers(["a..b", "no-such-balancer.invalid", "localhost"])
    assert balancers.client_of("127.0.0.1:1", SAID) == "127.0.0.1"
    looking = asyncio.create_task(balancers.look_up_forever())
    async with asyncio.timeout(20):
        while balancers.client_of("127.0.0.1:1", SAID) != "203.0.113.7":
            await asyncio.sleep(0.01)
    looking.cancel()
