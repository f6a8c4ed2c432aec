"""`flower-nats superlink` and `flower-nats gateway` with external servers."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from harness.children import PATIENCE, Child, ended, wait_until
from harness.environment import SCRIPTS, accepts_connections, clean_environment, free_port


@contextmanager
def started(tmp_path: Path, name: str, *command: str, **environment: str) -> Iterator[Child]:
    child = Child(
        ["flower-nats", name, *command],
        log_file=tmp_path / f"{name}.log",
        environment={"FLWR_HOME": str(tmp_path / "flwr-home"), **environment},
    )
    try:
        yield child
    finally:
        child.terminate()


def test_a_superlink_and_a_gateway_make_a_runtime(
    tmp_path: Path, nats_url: str, pg_dsn: str
) -> None:
    http = f"127.0.0.1:{free_port()}"
    home = tmp_path / "flwr-home"
    home.mkdir()
    (home / "config.toml").write_text(f'[superlink.here]\naddress = "{http}"\ninsecure = true\n')
    addresses = [
        *("--http-api-address", http),
        *("--control-api-address", f"127.0.0.1:{free_port()}"),
        *("--fleet-api-address", f"127.0.0.1:{free_port()}"),
        *("--serverappio-api-address", f"127.0.0.1:{free_port()}"),
    ]
    # Secrets come in the environment, where the process list does not show them.
    nats = {"FLOWER_NATS_GATEWAY_NATS": nats_url, "FLOWER_NATS_SUPERLINK_NATS": nats_url}
    database = {"FLOWER_NATS_SUPERLINK_DATABASE": pg_dsn}
    with (
        started(tmp_path, "superlink", "--isolation", "process", **nats, **database),
        started(tmp_path, "gateway", "--insecure", *addresses, **nats),
    ):
        wait_until(lambda: accepts_connections(http), PATIENCE, "a gateway")

        listed = subprocess.run(
            [str(SCRIPTS / "flwr"), "list", "here", "--format", "json"],
            env=clean_environment({"FLWR_HOME": str(home)}),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    assert json.loads(listed.stdout) == {"success": True, "runs": []}


def test_a_superlink_runs_a_superexec_that_ends_with_it_and_knows_no_passwords(
    tmp_path: Path, nats_url: str, pg_dsn: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    flags = ["--runtime-api-address", address]
    secrets = {"FLOWER_NATS_SUPERLINK_NATS": nats_url, "FLOWER_NATS_SUPERLINK_DATABASE": pg_dsn}

    with started(tmp_path, "superlink", *flags, **secrets) as superlink:
        superlink.wait_for_output("superlink_ready")
        superlink.wait_for_output("Starting Flower SuperExec")
        family = psutil.Process(superlink.pid).children(recursive=True)
        [superexec] = [one for one in family if _program(one) == "flower-superexec"]
        command, environment = superexec.cmdline(), superexec.environ()
        superlink.ask_to_end()

        assert superlink.wait(timeout=PATIENCE) == 0

    assert address in command
    # Apps can read all variables of the SuperExec that runs them.
    assert not [name for name in environment if name.startswith("FLOWER_NATS_")]
    assert ended(family)


def _program(process: psutil.Process) -> str:
    """Return the script that a process runs; empty if it runs none, or has ended."""
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return ""
    return os.path.basename(command[1]) if len(command) > 1 else ""
