"""Whether the dependencies of a ServerApp are installed when the ServerApp starts.

Stock installs them by default, with `uv sync` for each run (flwr 1.42
`supercore/superexec/dependency_installer.py`). Where uv reaches no package index, each run would
fail. There the default is not to install.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

import click

from flower_nats_cli.flower import SUPEREXEC, environment_for, find_program

_TRIAL_SECONDS = 10.0
"""Seconds for uv to read one small page of its index. Behind a firewall that drops packets, `up`
waits as long."""

_HASTY = {"UV_HTTP_TIMEOUT": "3", "UV_HTTP_RETRIES": "0"}
"""Variables that keep the trial short, because a person waits for it."""


def installs_dependencies(options: Mapping[str, Any]) -> bool:
    """Return the choice of `dependency_options`, else what works here; raises UsageError."""
    allowed = options["allow_runtime_dependency_installation"]
    disabled = options["disable_runtime_dependency_installation"]
    if allowed and disabled:
        raise click.UsageError(
            "--allow-runtime-dependency-installation and "
            "--disable-runtime-dependency-installation contradict each other. Remedy: use only "
            "one of them."
        )
    if allowed or disabled:
        return bool(allowed)
    if can_install():
        return True
    click.echo(
        "Note: uv reaches no package index, so ServerApps can use only the packages that are "
        "installed here. --disable-runtime-dependency-installation skips this check; with "
        "--allow-runtime-dependency-installation each run tries again.",
        err=True,
    )
    return False


@cache
def can_install() -> bool:
    """Whether our SuperExec's uv, with its settings and proxies, can read a page of its index."""
    python = find_program(SUPEREXEC).with_name("python")
    if not python.exists():
        return True  # There is no Python to ask. The run will show the error.
    asked = [str(python), "-m", "uv", "pip", "compile", "--quiet", "--no-deps", "--no-cache", "-"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            asked,
            input=b"pip",
            env=environment_for(python, **{k: v for k, v in _HASTY.items() if k not in os.environ}),
            capture_output=True,
            timeout=_TRIAL_SECONDS,
            check=False,
        )
        return done.returncode == 0
    return False
