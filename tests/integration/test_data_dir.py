"""A data directory is trusted only if no other user can have written to it."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from flower_nats.embedded.identity import ProcessIdentity
from flower_nats.embedded.ownership import NotOursError
from flower_nats.embedded.process import private_directory, private_file
from flower_nats.embedded.secret import secret_in
from flower_nats_cli.main import main

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
ANYWHERE = [
    f"--{api}-api-address=127.0.0.1:0" for api in ("http", "serverappio", "fleet", "control")
]
COMMANDS = [
    ["up", "--isolation", "process", "--console-address=none", *ANYWHERE],
    ["down"],
    ["status"],
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that looks used by an `up`."""
    directory = private_directory(tmp_path / "data")
    private_file(directory / "up.lock", "")
    return directory


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with a runtime."""
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


def refusal(*command: str, data: Path) -> str:
    """Run a command that must be refused; return its output."""
    result = CliRunner().invoke(main, [*command, "--data-dir", str(data)])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1, result.output
    return result.output


def remember(victim: subprocess.Popen[bytes], pid_file: Path) -> None:
    """Write a process into a pid file like those of the runtime."""
    identity = ProcessIdentity.of(victim.pid)
    assert identity is not None
    content = {"pid": identity.pid, "started": identity.started, "signal": 15}
    private_file(pid_file, json.dumps(content))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_that_others_may_write_to_is_refused_with_the_remedy(
    command: list[str], data: Path
) -> None:
    data.chmod(0o777)

    said = refusal(*command, data=data)

    assert f"chmod go-w {data}" in said
    assert [one.name for one in data.iterdir()] == ["up.lock"]


@AS_ROOT
@pytest.mark.parametrize("command", COMMANDS)
def test_a_directory_of_somebody_else_is_refused(command: list[str], data: Path) -> None:
    os.chown(data, pwd.getpwnam("nobody").pw_uid, -1)

    assert f"{data} belongs to nobody" in refusal(*command, data=data)


def test_a_password_that_was_put_there_is_not_taken(data: Path) -> None:
    planted = private_file(private_directory(data / "nats") / "password", "known")
    if os.geteuid() == 0:
        os.chown(planted, pwd.getpwnam("nobody").pw_uid, -1)
    else:
        planted.chmod(0o666)

    assert str(planted) in refusal(*COMMANDS[0], data=data)


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    password = secret_in(tmp_path)
    assert secret_in(tmp_path) == password
    (tmp_path / "password").chmod(0o644)

    with pytest.raises(NotOursError, match="chmod go-rwx"):
        secret_in(tmp_path)


@pytest.mark.parametrize("command", COMMANDS[:2])
def test_what_a_planted_pid_file_names_is_not_ended(
    command: list[str], data: Path, victim: subprocess.Popen[bytes]
) -> None:
    planted = private_directory(data / "run") / "gateway-1.pid"
    remember(victim, planted)
    planted.chmod(0o666)

    assert str(planted) in refusal(*command, data=data)

    assert victim.poll() is None


def test_a_pid_file_in_a_planted_directory_is_none_of_ours(
    data: Path, victim: subprocess.Popen[bytes]
) -> None:
    remember(victim, private_directory(data / "gifts") / "gateway-1.pid")
    (data / "gifts").chmod(0o777)

    assert str(data / "gifts") in refusal("down", data=data)

    assert victim.poll() is None


def test_a_process_that_has_the_id_of_a_former_one_is_not_ended(
    data: Path, victim: subprocess.Popen[bytes]
) -> None:
    content = {"pid": victim.pid, "started": "before the last boot", "signal": 15}
    private_file(private_directory(data / "run") / "gateway-1.pid", json.dumps(content))
    private_file(data / "up.lock", f"{victim.pid} before the last boot")

    done = CliRunner().invoke(main, ["down", "--data-dir", str(data)])

    assert done.exit_code == 0, done.output
    assert "Nothing runs" in done.output
    assert victim.poll() is None


def test_who_holds_a_lock_that_others_may_write_names_nobody(
    data: Path, victim: subprocess.Popen[bytes]
) -> None:
    lock = data / "up.lock"
    lock.write_text(str(victim.pid))
    lock.chmod(0o666)
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)

        assert str(lock) in refusal("down", data=data)

    assert victim.poll() is None
