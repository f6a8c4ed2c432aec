"""Programs, ports and environment variables for the processes of tests and benchmarks."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from flower_nats.embedded.ports import free_ports

# The folder of this environment's console scripts: stock clients start each other by name.
SCRIPTS = Path(sys.executable).parent


def free_port() -> int:
    """Return a loopback port that no outgoing connection takes while a server restarts."""
    return free_ports(1)[0]


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a stock process: no telemetry, no update check, no installing."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
    return inherited | {
        "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONUNBUFFERED": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # Wide enough for the tables of the stock CLI: a value is not broken into lines.
        "COLUMNS": "200",
        "NO_COLOR": "1",
        **extra,
    }


def accepts_connections(address: str) -> bool:
    """Whether a server listens on `address` (`host:port`)."""
    host, port = address.rsplit(":", maxsplit=1)
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False


def outer_host() -> str | None:
    """Return an address of this machine outside the loopback interface; None if there is none.

    To a server, a client that connects to this address looks like a client on another machine.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent: the system says which address it would send from.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        host: str = probe.getsockname()[0]
        return host
