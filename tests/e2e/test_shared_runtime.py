"""Two hospitals and a university share one runtime, each with stock commands and SuperNodes."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.certificates import ServerCertificates, create_node_key, create_server_certificates
from harness.children import Child
from harness.flower import Flower
from harness.flower_environments import installed
from tests.e2e.federation import APPS, SuperNode, run_id_in
from tests.e2e.test_cli_up import Runtime, run

STUDY = "@uni/study"
_ADDRESS = re.compile(r"is ready: HTTP (\S+),")


@dataclass(frozen=True)
class Person:
    """A user with their own account and machine."""

    name: str
    folder: Path
    certificates: ServerCertificates
    address: str
    """The runtime's address, for all APIs."""

    @classmethod
    def come(
        cls, runtime: Runtime, certificates: ServerCertificates, name: str, role: str = "user"
    ) -> Person:
        """Make an account and a token like an operator; store them in the files of `flwr`."""
        folder = runtime.folder / name
        folder.mkdir()
        data = ("--data-dir", str(runtime.data_dir))
        found = _ADDRESS.search(runtime.up.output())
        assert found is not None
        address = found[1]
        account = ("flower-nats", "account")
        said(run(*account, "create", name, "--role", role, "--no-password", *data))
        token = ("token", "create", name, "laptop", "--credentials-for", address)
        (folder / "credentials.yaml").write_text(said(run(*account, *token, *data)))
        (folder / "config.toml").write_text(
            f'[superlink]\ndefault = "shared"\n\n[superlink.shared]\naddress = "{address}"\n'
            f'root-certificates = "{certificates.ca_certificate}"\n'
        )
        return cls(name, folder, certificates, address)

    def flwr(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run `flwr`."""
        return run("flwr", *map(str, arguments), FLWR_HOME=str(self.folder), COLUMNS="200")

    def does(self, *arguments: str | Path) -> str:
        """Run `flwr`, which must succeed; return its output."""
        return said(self.flwr(*arguments))

    def may_not(self, *arguments: str | Path) -> str:
        """Run `flwr`, which must be refused; return its output."""
        done = self.flwr(*arguments)
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def lists(self, *arguments: str) -> dict[str, Any]:
        """Run `flwr … --format json`; return the parsed output."""
        found: dict[str, Any] = json.loads(self.does(*arguments, "--format", "json"))
        return found

    def runs(self) -> set[int]:
        """Return the runs that `flwr list` shows."""
        return {int(one["run-id"]) for one in self.lists("list")["runs"]}

    def nodes(self) -> set[int]:
        """Return the SuperNodes that `flwr supernode list` shows."""
        return {int(one["node-id"]) for one in self.lists("supernode", "list")["nodes"]}

    def federations(self) -> set[str]:
        """Return the federations that `flwr federation list` shows."""
        found = self.lists("federation", "list")["federations"]
        return {str(one["id"]) for one in found}

    def starts_supernode(self, name: str, federation: str) -> SuperNode:
        """Register a SuperNode, start it, and add it to a federation."""
        key = create_node_key(self.folder, name)
        self.does("supernode", "register", key.public)
        command = Flower(installed()).supernode(
            self.address, "", self.certificates.ca_certificate, key.private
        )
        process = Child(
            command,
            log_file=self.folder / f"{name}.log",
            environment={"FLWR_HOME": str(self.folder)},
        )
        node = SuperNode(name, process)
        self.does("federation", "add-supernode", str(node.node_id), federation)
        return node


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a command, which must have succeeded."""
    assert done.returncode == 0, (done.args, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[tuple[Runtime, ServerCertificates]]:
    """A runtime with accounts, over TLS."""
    certificates = create_server_certificates(tmp_path)
    files = {
        "--ssl-certfile": certificates.certificate,
        "--ssl-keyfile": certificates.key,
        "--ssl-ca-certfile": certificates.ca_certificate,
    }
    flags = [word for flag, path in files.items() for word in (flag, str(path))]
    running = Runtime(tmp_path, "--accounts", *flags)
    try:
        running.wait_until_ready()
        yield running, certificates
    finally:
        running.up.terminate()


@pytest.mark.long
def test_each_sees_its_own_and_the_trail_says_who_did_what(
    shared: tuple[Runtime, ServerCertificates], tmp_path: Path
) -> None:
    runtime, certificates = shared
    chief = Person.come(runtime, certificates, "chief", "operator")
    uni, north, south, intern = (
        Person.come(runtime, certificates, name) for name in ("uni", "north", "south", "intern")
    )
    nodes: list[SuperNode] = []
    try:
        uni.does("federation", "create", "study", "--description", "Two hospitals")
        for name in ("north", "south", "intern"):
            uni.does("federation", "invite", "create", name, STUDY)
        assert STUDY in intern.does("federation", "invite", "list")
        uni.does("federation", "invite", "revoke", "intern", STUDY)
        refused = intern.may_not("federation", "invite", "accept", STUDY)
        for hospital in (north, south):
            hospital.does("federation", "invite", "accept", STUDY)
            nodes.append(hospital.starts_supernode(f"{hospital.name}-node", STUDY))
        south.does("federation", "create", "own")
        nodes.append(south.starts_supernode("south-own-node", "@south/own"))
        app, there = APPS / "rounds", f'until="{certificates.ca_certificate}"'
        studied = run_id_in(
            uni.does("run", app, "--federation", STUDY, "--stream", "--run-config", there)
        )
        alone = ("--run-config", f"nodes=1 {there}")
        own = run_id_in(south.does("run", app, "--federation", "@south/own", "--stream", *alone))

        assert "no pending invitation" in refused
        took_part = {run: [one.took_part_in(run) for one in nodes] for run in (studied, own)}
        assert took_part == {studied: [True, True, False], own: [False, False, True]}
        seen = {
            one.name: (one.runs(), one.nodes(), one.federations())
            for one in (uni, north, south, intern, chief)
        }
        ids = [node.node_id for node in nodes]
        assert seen["uni"] == ({studied}, set(), {STUDY})
        assert seen["north"] == ({studied}, {ids[0]}, {STUDY})
        assert seen["south"] == ({studied, own}, {ids[1], ids[2]}, {STUDY, "@south/own"})
        assert seen["intern"] == (set(), set(), set())
        assert seen["chief"] == ({studied, own}, set(ids), {STUDY, "@south/own", "@none/default"})
        assert "round 1: 2 answers, 0 errors" in north.does("log", str(studied), "--show")
        for stranger, run_id in ((intern, studied), (north, own)):
            said_of_it = stranger.may_not("log", str(run_id), "--show")
            assert "not found" in said_of_it.lower()
            assert "round 1" not in said_of_it
        data = ("--data-dir", str(runtime.data_dir))
        lines = said(run("flower-nats", "audit", "--json", *data)).splitlines()
        trail = {
            (one["account_name"], one["action"], one["object"], one["outcome"])
            for one in map(json.loads, lines)
        }
        assert {
            ("uni", "RevokeInvitation", f"{STUDY}, account intern", "done"),
            ("intern", "AcceptInvitation", STUDY, "FEDERATION_NOT_FOUND_OR_NO_PENDING_INVITE"),
            ("uni", "StartRun", f"run {studied}, {STUDY}", "done"),
            ("south", "AddNodeToFederation", f"node {ids[2]}, @south/own", "done"),
            ("intern", "StreamLogs", f"run {studied}", "RUN_ID_NOT_FOUND"),
        } <= trail
        assert json.loads(lines[-1])["address"] == "127.0.0.1"
        said(run("flower-nats", "audit", "--verify", *data))
    finally:
        for node in nodes:
            node.process.terminate()
