"""Signed apps: SuperNodes run only apps of signers that they trust."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from harness.children import PATIENCE
from tests.e2e.federation import APPS, BOTH, Federation, SuperNode
from tests.e2e.servers import STOCK

pytestmark = pytest.mark.skipif(STOCK, reason="stock hands on signatures of its Hub alone")

KEY_ID = "reviewer"


def create_key(folder: Path, name: str) -> Path:
    """Create a key like `ssh-keygen -t ed25519`, and the node's file of trusted signers."""
    key = Ed25519PrivateKey.generate()
    file = folder / name
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    (folder / f"{name}.yaml").write_text(f"{KEY_ID}: {json.dumps(public)}\n")
    return file


def flower_nats(*arguments: str | Path) -> str:
    command = ["flower-nats", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sign_and_accept(user: Federation, key: Path) -> None:
    """Build the app like a user, sign it, and make the runtime accept the signature."""
    built = user.cli("build", "--app", APPS / "nothing")
    assert built.returncode == 0, built.stderr
    [fab] = user.folder.glob("*.fab")
    said = flower_nats("app", "sign", fab, "--key", key, "--key-id", KEY_ID)
    assert f'"{KEY_ID}": "ssh-ed25519 ' in said
    data = user.server.folder / "data"
    flower_nats("app", "accept", fab.with_name(f"{fab.name}.sig"), "--data-dir", data)
    fab.unlink()


def test_supernodes_run_the_apps_of_those_whom_they_trust(
    federation: Federation, user: Federation, tmp_path: Path
) -> None:
    keys = {name: create_key(tmp_path, name) for name in ("known", "unknown")}
    nodes = {
        name: [
            SuperNode(
                f"{name}-{version}",
                federation.of(version).start_supernode_process(
                    f"{name}-{version}", trusted_entities=tmp_path / f"{name}.yaml"
                ),
            )
            for version in BOTH
        ]
        for name in keys
    }
    everybody = [node for some in nodes.values() for node in some]
    config = f"nodes={len(everybody)} rounds=1"

    _, log = user.run_to_end("nothing", config)
    for node in everybody:
        assert f"node {node.node_id} refused: The FAB could not be verified." in log

    sign_and_accept(user, keys["known"])
    _, log = user.run_to_end("nothing", config)
    for node in nodes["known"]:
        assert f"node {node.node_id} answered" in log
    for node in nodes["unknown"]:
        assert f"node {node.node_id} refused: The FAB could not be verified." in log
