"""A port that was given to a server is given to no other server."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from flower_nats.embedded import nats_cluster, ports
from flower_nats.embedded.nats_cluster import NatsCluster
from flower_nats.embedded.ports import free_ports
from flower_nats.settings import GatewaySettings
from flower_nats_cli.addresses import claim_addresses, split_address
from flower_nats_cli.placement import edges


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> range:
    """As many free ports as the test says; none of them counts as given."""
    count: int = request.param
    start = random.choice(ports.RANGE[: -10 * count])
    while not all(map(ports.is_free, range(start, start + count))):
        start += 1
    monkeypatch.setattr(ports, "RANGE", range(start, start + count))
    monkeypatch.setattr(ports, "_given", set())
    for module in (ports, nats_cluster):
        monkeypatch.setattr(module, "is_free", lambda port: True)
    return ports.RANGE


@pytest.mark.parametrize("few", [6], indirect=True)
def test_no_port_is_given_twice_though_nobody_listens_there_yet(few: range) -> None:
    assert sorted(free_ports(3) + free_ports(3)) == list(few)


@pytest.mark.parametrize("few", [3], indirect=True)
def test_a_port_that_a_user_has_chosen_is_not_given_to_another_server(few: range) -> None:
    claim_addresses([("--port", f"127.0.0.1:{few[1]}")])

    assert sorted(free_ports(2)) == [few[0], few[2]]


@pytest.mark.parametrize("few", [8], indirect=True)
def test_the_ports_that_a_cluster_has_kept_are_not_given_to_another_server(
    few: range, tmp_path: Path
) -> None:
    kept = tmp_path / "nats-cluster" / "ports.json"
    kept.parent.mkdir(mode=0o700)
    kept.write_text(json.dumps(list(zip(few[:3], few[3:6], strict=True))))
    NatsCluster(tmp_path)

    assert sorted(free_ports(2)) == [few[6], few[7]]


@pytest.mark.parametrize("few", [19], indirect=True)
def test_gateways_behind_a_balancer_and_what_is_in_front_share_no_port(few: range) -> None:
    http, serverappio, fleet, control = (f"127.0.0.1:{port}" for port in few[:4])
    claim_addresses([("", one) for one in (http, serverappio, fleet, control)])
    public = GatewaySettings(
        nats=(),
        http_api_address=http,
        serverappio_api_address=serverappio,
        fleet_api_address=fleet,
        control_api_address=control,
    )

    behind = edges(public, replicas=3)

    listening = [
        *(api.listen for api in behind.balanced),
        *(api.log_relay for api in behind.balanced if api.log_relay),
        *(one.http_api_address for one in behind.gateways),
        *(one.serverappio_api_address for one in behind.gateways),
        *(one.fleet_api_address for one in behind.gateways),
        *(one.control_api_address for one in behind.gateways),
    ]
    assert sorted(split_address(one)[1] for one in listening) == list(few)
