"""systemd takes the units in docs/systemd, and the unit of `flower-nats local install`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flower_nats_cli.systemd import unit_text
from harness.commands import commands

UNITS = sorted((Path(__file__).parents[2] / "docs" / "systemd").glob("*.service"))

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


def verify(unit: Path, *flags: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *flags, "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return "\n".join(line for line in done.stderr.splitlines() if unit.name in line)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    # The programs and files in the unit are not on this machine.
    text = unit.read_text().replace("EnvironmentFile=", "EnvironmentFile=-")
    lines = text.splitlines()
    [start] = [line for line in lines if line.startswith("ExecStart=")]
    program, *words = start.removeprefix("ExecStart=").split()
    copy = tmp_path / unit.name
    copy.write_text(text.replace(program, "/bin/true"))

    assert verify(copy) == ""
    if program.endswith("/flower-nats"):
        assert words[0] in commands()


def test_systemd_takes_the_unit_of_the_local_runtime(tmp_path: Path) -> None:
    unit = tmp_path / "flower-nats-local.service"
    unit.write_text(unit_text([sys.executable, "-P", "a $ and % word"], {"FLWR_HOME": '/a "home"'}))

    assert verify(unit, "--user") == ""
