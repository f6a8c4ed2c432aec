"""The user who runs a SuperExec and its apps, checked before anything is started."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from flower_nats.embedded.process import User

_OPTION = "--superexec-user"

_TRY = """
import os, sys, tempfile
for directory in sys.argv[2:]:
    os.makedirs(directory, exist_ok=True)
    tempfile.TemporaryFile(dir=directory).close()
if sys.argv[1]:
    open(sys.argv[1]).close()
"""


def find_user(name: str) -> User:
    """Return a user of this machine by name. Raises BadParameter if we cannot run processes as them."""
    try:
        found = pwd.getpwnam(name)
    except KeyError as exc:
        raise _refused(f"{name!r} is not a user of this machine.") from exc
    if os.geteuid() not in (0, found.pw_uid):
        raise _refused("Only root may run processes as another user.")
    return User(name, found.pw_uid, found.pw_gid, Path(found.pw_dir))


def variables_of(user: User) -> dict[str, str]:
    """Return the variables that a login sets for a user."""
    return {"HOME": str(user.home), "USER": user.name, "LOGNAME": user.name}


def check_user(
    user: User, program: Path, ca_certificate: Path | None, environment: Mapping[str, str]
) -> None:
    """Raise BadParameter unless the user can run the program, write FLWR_HOME and read its CA."""
    home = environment.get("FLWR_HOME") or f"{user.home}/.flwr"
    _try(user, environment, [str(program), "--version"], f"{user.name} cannot run {program}")
    _try(
        user,
        environment,
        [sys.executable, "-I", "-S", "-c", _TRY, str(ca_certificate or ""), home],
        f"{user.name} cannot write to {home}, where Flower keeps apps"
        + (f", or cannot read {ca_certificate}" if ca_certificate else ""),
    )


def _try(user: User, environment: Mapping[str, str], command: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            cwd="/",
            user=user.uid if os.geteuid() == 0 else None,
            group=user.gid if os.geteuid() == 0 else None,
            extra_groups=os.getgrouplist(user.name, user.gid) if os.geteuid() == 0 else None,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as exc:
        raise _refused(f"{what}: {exc.strerror}. {_REMEDY}") from exc
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        raise _refused(f"{what}: {reason}. {_REMEDY}")


_REMEDY = (
    "Remedy: use a user with a home directory (useradd --create-home), a FLWR_HOME that this "
    "user can write to, and programs and certificates that this user can read, not below /root."
)


def _refused(text: str) -> click.BadParameter:
    return click.BadParameter(text, param_hint=_OPTION)
