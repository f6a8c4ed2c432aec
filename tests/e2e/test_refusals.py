"""Requests that the runtime does not serve are refused with a clear sentence."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from harness.certificates import create_node_key
from harness.fabs import PROJECT, archive, pack
from tests.e2e.federation import APPS, BOTH, Federation, refusal_in
from tests.e2e.servers import STOCK, ServerOptions

DEFAULT_FEDERATION = "@none/default"

over_each_wire = pytest.mark.parametrize("version", BOTH)
ours_only = pytest.mark.skipif(STOCK, reason="the stock SuperLink does not say why")


@pytest.fixture(scope="module")
def server_options() -> ServerOptions:
    # No ServerApp runs in these tests, so no SuperExec is needed.
    return ServerOptions(isolation="process")


@ours_only
def test_the_default_federation_stays_as_it_is(user: Federation, tmp_path: Path) -> None:
    key = create_node_key(tmp_path, "node")
    mine = user.cli_json("supernode", "register", key.public)["node-id"]

    refusal = user.refusal("federation", "add-supernode", mine, DEFAULT_FEDERATION)
    of_another = user.refusal("federation", "add-supernode", "5", DEFAULT_FEDERATION)

    assert refusal == "[code: 11] The SuperNode is already part of the federation."
    assert of_another == "[code: 28] Node not found or you are not its owner."
    assert user.refusal("federation", "archive", DEFAULT_FEDERATION).startswith("[code: 10]")


@ours_only
def test_there_is_nobody_to_invite_without_accounts(user: Federation) -> None:
    user.cli_json("federation", "create", "mine")

    refusal = user.refusal("federation", "invite", "create", "ana", "@none/mine")

    assert refusal.startswith("[code: 6] One or more specified accounts were not found.")
    assert "There is no account 'ana' that may log in." in refusal


@over_each_wire
def test_what_an_unknown_run_has_left_is_not_found(user: Federation) -> None:
    assert user.refusal("pull", "5") == "[code: 16] Run ID not found."


def test_a_federation_cannot_become_a_simulation(user: Federation) -> None:
    command = ["federation", "simulation-config", DEFAULT_FEDERATION, "--num-supernodes", "3"]

    assert user.refusal(*command).startswith("[code: ")


@ours_only
def test_an_unknown_federation_is_not_shown(user: Federation) -> None:
    refusal = user.refusal("federation", "list", "--federation", "@none/unknown")

    assert "Federation" in refusal
    assert "Internal server error" not in refusal


@ours_only
def test_an_app_from_the_hub_is_refused_without_asking_the_hub(user: Federation) -> None:
    assert user.refusal("run", "@somebody/app").startswith("[code: 3")


def test_only_a_known_node_can_be_unregistered(user: Federation) -> None:
    refusal = user.refusal("supernode", "unregister", "12")

    assert refusal == "[code: 24] Node ID not found for account."


@over_each_wire
def test_a_key_can_be_registered_once(user: Federation, tmp_path: Path) -> None:
    key = create_node_key(tmp_path, "node")

    registered = user.cli_json("supernode", "register", key.public)
    refusal = user.refusal("supernode", "register", key.public)

    assert user.nodes()[int(registered["node-id"])] == "registered"
    assert refusal == "[code: 23] Public key already in use."


@ours_only
def test_what_is_not_a_fab_is_refused_with_the_reason_and_leaves_no_run(
    user: Federation,
) -> None:
    too_large = {path.name: path.read_bytes() for path in (APPS / "nothing").glob("*.*")}
    too_large["weights.json"] = random.Random(1).randbytes(11_000_000)
    refused = {
        "not a readable zip archive": b"this is not an archive",
        "holds no .info/CONTENT": archive([("pyproject.toml", PROJECT.encode())]),
        "10,485,760": pack(too_large),
    }

    for reason, fab in refused.items():
        assert reason in refusal_in(user.submit_fab(fab))
    assert user.cli_json("list")["runs"] == []


def test_the_stock_cli_does_not_even_build_a_fab_of_more_than_ten_megabytes(
    user: Federation, tmp_path: Path
) -> None:
    app = tmp_path / "nothing"
    app.mkdir()
    for path in (APPS / "nothing").glob("*.*"):
        (app / path.name).write_bytes(path.read_bytes())
    (app / "weights.json").write_bytes(random.Random(1).randbytes(11_000_000))

    assert "exceeds maximum allowed size of 10,485,760 bytes" in user.refusal("run", app)
