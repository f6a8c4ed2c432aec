"""A user's work with `flwr` on a running federation: run, list, stop."""

from __future__ import annotations

import re

import psutil
import pytest

from harness.children import PATIENCE, wait_until
from tests.e2e.federation import APPS, BOTH, Federation, SuperNode, run_id_in

DEFAULT_FEDERATION = "@none/default"

over_each_wire = pytest.mark.parametrize("version", BOTH)


@pytest.fixture(scope="module")
def finished_run(federation: Federation, supernodes: list[SuperNode]) -> int:
    """A finished run of the app 'nothing' with both nodes, streamed to its end."""
    run_id, log = federation.run_to_end("nothing", 'rounds=2 question="what is new"')
    for node in supernodes:
        assert log.count(f"node {node.node_id} answered: what is new, asked {node.name}\n") == 2
    for number in (1, 2):
        assert log.count(f"round {number} gathered 2 answers\n") == 1
    return run_id


def test_a_streamed_run_with_a_run_config_of_its_own_shows_its_output_and_completes(
    federation: Federation, finished_run: int
) -> None:
    details = federation.details_of(finished_run)

    assert details["status"] == "finished:completed"
    assert details["fab-id"] == "flower-nats/nothing"
    assert details["fab-version"] == "1.0.0"
    assert details["federation-id"] == DEFAULT_FEDERATION


def test_a_finished_run_accounts_for_its_time_and_traffic(
    federation: Federation, finished_run: int
) -> None:
    details = federation.details_of(finished_run)
    moments = [details[f"{state}-at"] for state in ("pending", "starting", "running", "finished")]
    traffic, compute = details["network-traffic"], details["compute-time"]

    assert moments == sorted(moments)
    assert details["elapsed"] > 0
    assert traffic["inbound-bytes"] > 0
    assert traffic["outbound-bytes"] > 0
    assert 0 < compute["serverapp-seconds"] <= details["elapsed"] + 1
    # Each of the two nodes computes at most all of the time.
    assert 0 < compute["clientapp-seconds"] <= 2 * details["elapsed"]


def test_an_unknown_run_config_key_is_refused(user: Federation) -> None:
    before = len(user.cli_json("list")["runs"])

    refusal = user.refusal("run", APPS / "nothing", "--run-config", "nonsense=1")

    assert refusal.startswith("[code: 15] Invalid run configuration.")
    assert len(user.cli_json("list")["runs"]) == before


def test_an_unknown_federation_is_refused(user: Federation) -> None:
    refusal = user.refusal("run", APPS / "nothing", "--federation", "@none/unknown")

    assert refusal.startswith("[code: 2] Federation not found")


@over_each_wire
def test_the_list_shows_runs_newest_first_for_people(user: Federation, finished_run: int) -> None:
    listed = user.cli("list").stdout
    newest_first = user.cli_json("list")["runs"]
    detailed = user.cli("list", "--run-id", str(finished_run)).stdout
    limited = user.cli_json("list", "--limit", "1")["runs"]

    assert re.search(rf"{finished_run} +│ +{DEFAULT_FEDERATION} .*finished:completed", listed)
    assert newest_first == sorted(newest_first, key=lambda run: run["pending-at"], reverse=True)
    assert re.search(r"Status +│ finished:completed", detailed)
    assert [run["run-id"] for run in limited] == [newest_first[0]["run-id"]]


def test_an_unknown_run_is_refused_by_every_command(user: Federation) -> None:
    for command in (("list", "--run-id", "5"), ("stop", "5"), ("log", "5", "--stream")):
        assert user.refusal(*command) == "[code: 16] Run ID not found."


def test_a_serverapp_that_raises_fails_its_run_with_the_reason(federation: Federation) -> None:
    done = federation.cli("run", APPS / "failing", "--stream")
    details = federation.details_of(run_id_in(done.stdout))

    assert "about to fail\n" in done.stdout
    assert "RuntimeError: the dog ate it" in done.stdout
    assert details["status"] == "finished:failed"
    assert details["status-details"] == "ServerApp failed with exception: the dog ate it"


@pytest.mark.long
def test_two_runs_share_the_supernodes_each_on_its_own_subset(
    federation: Federation, supernodes: list[SuperNode]
) -> None:
    lowest, highest = sorted(supernodes, key=lambda node: node.node_id)

    on_all = federation.run_app("nothing", "seconds=8.0")
    on_lowest = federation.run_app("subset")
    for run_id in (on_all, on_lowest):
        federation.wait_for_status(run_id, "finished:completed")

    runs = [federation.details_of(run_id) for run_id in (on_all, on_lowest)]
    assert max(run["running-at"] for run in runs) <= min(run["finished-at"] for run in runs)
    log = federation.log_of(on_all)
    assert "round 1 gathered 2 answers\n" in log
    for node in supernodes:
        assert f"node {node.node_id} answered: how are you, asked {node.name}\n" in log
    assert f"asked node {lowest.node_id}: {lowest.name}\n" in federation.log_of(on_lowest)
    assert lowest.took_part_in(on_all)
    assert highest.took_part_in(on_all)
    assert lowest.took_part_in(on_lowest)
    assert not highest.took_part_in(on_lowest)


def test_stop_ends_the_serverapp_process_and_the_run(user: Federation) -> None:
    started = user.cli_json("run", APPS / "slow")
    run_id = int(started["run-id"])
    stream = user.start_cli("stopped-stream", "log", str(run_id), "--stream")
    process_id = int(stream.wait_for_match(re.compile(r"process (\d+)\n"))[1])

    stopped = user.cli_json("stop", str(run_id))
    again = user.cli_json("stop", str(run_id))

    assert started["success"] is True
    assert started["federation-id"] == DEFAULT_FEDERATION
    assert started["fab-id"] == "flower-nats/slow"
    assert stopped == {"success": True, "run-id": str(run_id)}
    assert again["success"] is False
    assert again["error-message"].endswith("[code: 18] Run is already finished.")
    assert user.status_of(run_id) == "finished:stopped"
    wait_until(lambda: has_ended(process_id), 40.0, "the ServerApp process to end")
    assert stream.wait(10.0) == 0
    assert user.refusal("stop", str(run_id)) == "[code: 18] Run is already finished."


@pytest.mark.long
def test_a_reply_to_a_stopped_run_is_refused_and_the_supernode_goes_on(
    federation: Federation, supernodes: list[SuperNode]
) -> None:
    alpha, _ = supernodes
    run_id = federation.run_app("patient", 'nodes=2 slow-nodes="alpha" seconds=4.0')
    wait_until(lambda: alpha.took_part_in(run_id), PATIENCE, "alpha to be asked")

    done = federation.cli("stop", str(run_id))

    assert f"Run {run_id} successfully stopped." in done.stdout
    alpha.process.wait_for_output(f"Run ID {run_id} is not in `RUNNING` status. Ignoring reply")
    next_run = federation.run_app("nothing")
    federation.wait_for_status(next_run, "finished:completed")
    assert f"node {alpha.node_id} answered" in federation.log_of(next_run)
    assert federation.status_of(run_id) == "finished:stopped"


def test_the_lists_of_federations_and_supernodes_speak_json(
    user: Federation, supernodes: list[SuperNode], finished_run: int
) -> None:
    (listed,) = user.cli_json("federation", "list")["federations"]
    shown = user.cli_json("federation", "list", "--federation", DEFAULT_FEDERATION)
    nodes = user.cli_json("supernode", "list")["nodes"]
    online = {str(node.node_id) for node in supernodes}

    assert (listed["id"], listed["archived"]) == (DEFAULT_FEDERATION, False)
    assert listed["simulation"] is False
    assert shown["federation"]["members"] == [{"member_id": "none", "role": "owner"}]
    assert {node["node_id"] for node in shown["federation"]["nodes"]} == online
    assert str(finished_run) in {run["run_id"] for run in shown["federation"]["runs"]}
    assert {node["node-id"] for node in nodes if node["status"] == "online"} == online
    assert {node["owner-name"] for node in nodes} == {"none"}


@over_each_wire
def test_the_lists_of_federations_and_supernodes_read_well(
    user: Federation, supernodes: list[SuperNode]
) -> None:
    federations = user.cli("federation", "list").stdout
    shown = user.cli("federation", "list", "--federation", DEFAULT_FEDERATION).stdout
    nodes = user.cli("supernode", "list").stdout

    assert re.search(rf"{DEFAULT_FEDERATION} .*│ deployment │ active", federations)
    for node in supernodes:
        assert re.search(rf"{node.node_id} +│ +none +│ +online", shown)
        assert re.search(rf"{node.node_id} +│ +none +│ +online", nodes)


def has_ended(process_id: int) -> bool:
    """Return whether a process is gone, or a zombie because its parent does not wait for it."""
    try:
        return psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
