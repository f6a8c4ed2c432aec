"""What an app can see of the runtime and of the user that started it."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.children import PATIENCE, wait_until
from tests.e2e.federation import APPS, run_id_in
from tests.e2e.test_cli_up import Runtime, log_of, run, write_config


def may_be_nobody() -> bool:
    """Return whether the user nobody may run this Python: not if it is in root's home."""
    if os.geteuid() != 0:
        return False
    try:
        return (
            subprocess.run([sys.executable, "-c", ""], user="nobody", check=False).returncode == 0
        )
    except OSError:
        return False


AS_NOBODY = pytest.mark.skipif(
    not may_be_nobody(), reason="we are not root, or nobody cannot run our Python"
)

OPERATORS = {"AWS_SECRET_ACCESS_KEY": "hush", "MINE": "mine", "OTHER": "other"}


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    """A folder for apps that the user nobody may write to."""
    # The folder is not in tmp_path, which only its owner may enter.
    folder = Path(tempfile.mkdtemp(prefix="flower-nats-test-"))
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    yield folder
    shutil.rmtree(folder)


def seen_by_app(runtime: Runtime, tmp_path: Path) -> dict[str, Any]:
    """Run the app; return its report."""
    runtime.wait_until_ready()
    home = {"FLWR_HOME": str(tmp_path / "users-home")}
    write_config(runtime, tmp_path / "users-home")
    config = f"data-dir='{runtime.data_dir}'"
    submitted = run(
        *("flwr", "run", str(APPS / "curious"), "flower-nats", "--run-config", config), **home
    )
    run_id = run_id_in(submitted.stdout)

    def told() -> re.Match[str] | None:
        return re.search(r"SEEN (.*)", log_of(run_id, home))

    seen: dict[str, Any] = json.loads(wait_until(told, PATIENCE, "the app to tell", every=1.0)[1])
    return seen


def test_an_app_gets_no_variables_of_the_operator(tmp_path: Path) -> None:
    flags = ("--disable-runtime-dependency-installation", "--superexec-env", "MINE")
    runtime = Runtime(tmp_path, *flags, **OPERATORS)
    try:
        seen = seen_by_app(runtime, tmp_path)
    finally:
        runtime.up.terminate()

    assert {"PATH", "MINE"} <= set(seen["variables"])
    assert not {"AWS_SECRET_ACCESS_KEY", "OTHER"} & set(seen["variables"])
    assert seen["given"] == ""


@AS_NOBODY
def test_an_app_of_another_user_reads_nothing_of_the_runtime(
    tmp_path: Path, home_of_nobody: Path
) -> None:
    runtime = Runtime(
        tmp_path,
        *("--disable-runtime-dependency-installation", "--superexec-user", "nobody"),
        **{**OPERATORS, "FLWR_HOME": str(home_of_nobody)},
    )
    try:
        seen = seen_by_app(runtime, tmp_path)
        assert "ServerApps run as" not in runtime.up.output()
    finally:
        runtime.up.terminate()

    assert seen["user"] == pwd.getpwnam("nobody").pw_uid
    assert seen["files"] == []
    assert seen["secrets"] == []
    assert seen["given"] == ""
