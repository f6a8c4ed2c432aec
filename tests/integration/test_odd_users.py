"""Users that cannot run PostgreSQL, and file systems without locks: a sentence, no traceback."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from flower_nats.embedded import postgres_server
from flower_nats.embedded.postgres_server import PostgresServer, UserError
from flower_nats_cli.main import main

START = """
import asyncio, sys
from pathlib import Path
from flower_nats.embedded.postgres_server import PostgresServer, UserError
async def start():
    server = PostgresServer(Path(sys.argv[1]))
    await server.start()
    await server.stop()
try:
    asyncio.run(start())
except UserError as exc:
    print(exc)
"""

IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user")
WITHOUT_CAPABILITIES = ("setpriv", "--bounding-set", "-all", "--inh-caps", "-all")
# In a namespace, because an unknown user cannot open root's Python.
WITHOUT_A_NAME = ("unshare", "--user", "--map-user=12345")


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        (IN_A_NAMESPACE, "Remedy: start flower-nats as another user than root"),
        (WITHOUT_CAPABILITIES, "Remedy: start flower-nats as another user than root"),
        (WITHOUT_A_NAME, "The user id 12345 has no entry in /etc/passwd"),
    ],
    ids=["root in a user namespace", "root without capabilities", "a user without a name"],
)
def test_a_user_as_whom_postgres_cannot_run_is_told_what_to_do(
    wrapper: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    if shutil.which(wrapper[0]) is None or not can_run([*wrapper, "/bin/true"]):
        pytest.skip(f"{' '.join(wrapper)} does not work here")

    tried = subprocess.run(
        [*wrapper, sys.executable, "-c", START, str(tmp_path / "postgres")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert said in tried.stdout, tried.stdout + tried.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="others run PostgreSQL as themselves")
async def test_root_is_told_that_its_programs_lie_where_postgres_may_not_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "root"
    private.mkdir(mode=0o700)
    (private / "bin").mkdir()
    for program in ("postgres", "initdb"):
        (private / "bin" / program).symlink_to(postgres_server.find_postgres() / program)
    monkeypatch.setattr(postgres_server, "find_postgres", lambda: private / "bin")

    with pytest.raises(UserError, match=r"`nobody` may not read .*Remedy: install"):
        await PostgresServer(tmp_path / "postgres").start()
    assert not (tmp_path / "postgres").exists()


def can_run(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for command in (["up", "--isolation", "process"], ["status"], ["down"]):
        (tmp_path / "up.lock").touch()
        refused = CliRunner().invoke(main, [*command, "--data-dir", str(tmp_path)])

        assert refused.exit_code == 2
        assert "does not lock files (No locks available)" in refused.output
